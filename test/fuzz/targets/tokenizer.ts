import {readFile} from 'node:fs/promises';
import {createTokenizer, decode, encode} from '../../../runner/tokenizer';
import {bytesOf, jsonOf, type FuzzTarget} from '../fuzz_target';
import {mutateJson} from '../mutations';
import {fileOfRepository} from '../repository';

interface Case {
  tokenizer: object;
  texts: string[];
}

const TEXTS = [
  ...['', 'Hello world', "it's 12345 o'clock\r\n\n  ", 'été 你好 🙂\ufeff', '<s>a</s>', '\ud800'],
  ...[`${'a'.repeat(60)}!`, ' '.repeat(3000), `${'ab '.repeat(300)}\n`],
];

const split = (Regex: string) => ({type: 'Split', pattern: {Regex}, behavior: 'Isolated', invert: false});
const sequence = (...pretokenizers: object[]) => ({type: 'Sequence', pretokenizers});
const byteLevel = {type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: true};
const EXPRESSIONS = [
  '(a+)+$',
  '(a|b)*',
  String.raw`\s+(?!\S)|\s+`,
  String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`,
  'a{0,9}',
  '()*',
  '(?i:x)+',
];

/** Small tokenizers of the kinds that models have, with changed parts. */
export async function tokenizer(): Promise<FuzzTarget> {
  const url = fileOfRepository('demo/public/model/tokenizer.json');
  const {model, ...demo} = JSON.parse(await readFile(url, 'utf8')) as {model: {vocab: object; merges: unknown[]}};
  const vocab = Object.fromEntries(Object.entries(model.vocab).slice(0, 300));
  const small = {...demo, model: {...model, vocab, merges: model.merges.slice(0, 40)}};
  const metaspace = {
    ...small,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        {type: 'Prepend', prepend: '▁'},
        {type: 'Replace', pattern: {String: ' '}, content: '▁'},
      ],
    },
    pre_tokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [{type: 'ByteFallback'}, {type: 'Fuse'}, {type: 'Strip', content: ' ', start: 1, stop: 0}],
    },
  };
  const others = [
    {...small, pre_tokenizer: sequence({type: 'Digits', individual_digits: true}, byteLevel)},
    {
      ...small,
      pre_tokenizer: sequence({type: 'FixedLength', length: 5}, {type: 'Whitespace'}),
      normalizer: {type: 'NFC'},
    },
    {...small, pre_tokenizer: {type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true}},
    {
      ...small,
      model: {
        type: 'Unigram',
        unk_id: 0,
        vocab: [
          ['?', 0],
          ['a', -1],
          ['b', -2],
          ['ab', -1.5],
        ],
      },
    },
    {
      ...small,
      model: {type: 'WordPiece', unk_token: '?', continuing_subword_prefix: '##', vocab: {'?': 0, a: 1, '##b': 2}},
    },
  ];
  return {
    ending: 'json',
    make(random) {
      const pre_tokenizer = sequence(split(random.pick(EXPRESSIONS)), byteLevel);
      const base = random.pick<object>([small, metaspace, ...others, {...small, pre_tokenizer}]);
      const {model, ...parts} = base as {model: {vocab: object}};
      // The parts have few places, the vocabulary hundreds.
      const changed = random.chance(0.8)
        ? {...(mutateJson(parts, random) as object), model: random.chance(0.3) ? changeFields(model, random) : model}
        : mutateJson(base, random);
      return bytesOf(JSON.stringify({tokenizer: changed, texts: [random.pick(TEXTS), random.pick(TEXTS)]}));

      function changeFields({vocab, ...fields}: {vocab: object}, by: typeof random): object {
        return {vocab, ...(mutateJson(fields, by) as object)};
      }
    },
    run(input) {
      const {tokenizer: json, texts} = jsonOf<Case>(input);
      if (typeof json !== 'object' || json === null || Array.isArray(json)) return;
      const made = createTokenizer(json);
      for (const text of texts) {
        const ids = encode(made, text);
        const wrong = ids.find((id) => !Number.isInteger(id) || id < 0);
        if (wrong !== undefined) throw new Error(`id ${wrong}`);
        decode(made, ids.slice(0, 200));
      }
    },
  };
}
