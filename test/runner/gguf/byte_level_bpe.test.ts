import {expect} from 'chai';
import {tokenizerOfGGUF} from '../../../runner/gguf/gguf_tokenizer';
import {decode, encode} from '../../../runner/tokenizer';
import {GGML, json, metadataOf, replaced, TinyTokenizer, tokenizerOf, type Fields} from './tiny_tokenizer';

describe('tokenizerOfGGUF, byte-level BPE', () => {
  let tiny: TinyTokenizer;
  before(async () => {
    tiny = await TinyTokenizer.load();
  });

  it('makes the tokens that llama.cpp makes, and text of them again', () => {
    const tokenizer = tokenizerOf(tiny.metadata);
    for (const {text, ids} of tiny.cases) {
      expect(encode(tokenizer, text), text).to.deep.equal(ids);
      expect(decode(tokenizer, ids), text).to.equal(text);
    }
  });

  for (const pre of ['gpt-2', 'smollm', 'llama-bpe', 'qwen2']) {
    it(`splits as ${pre} does, blanks that JavaScript takes for others included`, async () => {
      const {strings, ids} = await json<{strings: {name: string; text: string}[]; ids: Record<string, number[][]>}>(
        'pre_tokenizers',
      );
      const tokenizer = tokenizerOf(tiny.with({pre}));
      strings.forEach(({name, text}, i) => {
        expect(encode(tokenizer, text), name).to.deep.equal(ids[pre][i]);
        // What qwen2 composes stays composed.
        expect(decode(tokenizer, ids[pre][i]), name).to.equal(pre === 'qwen2' ? text.normalize('NFC') : text);
      });
    });
  }

  it('takes llama3 for llama-bpe, and only such names', () => {
    const [llama3, bpe] = ['llama3', 'llama-bpe'].map((pre) => tokenizerOfGGUF(metadataOf(tiny.with({pre}))));
    expect(llama3).to.deep.equal(bpe);
    expect(() => tokenizerOf(tiny.with({pre: 'default'}))).to.throw(
      'GGUF: tokenizer.ggml.pre is "default"; accepted: gpt-2, ',
    );
  });

  it('leaves out bytes that the vocabulary lacks, before it merges', () => {
    const [c3, a9] = ['\u00c3', '\u00a9'].map((byte) => tiny.id(byte));
    const tokens = replaced(replaced(tiny.tokens, c3, 'no c3'), a9, 'no a9');
    const tokenizer = tokenizerOf(tiny.with({tokens}));
    expect(encode(tokenizer, 'h\u00e9e')).to.deep.equal([tiny.id('he')]);
    expect(encode(tokenizer, '\u00e9')).to.deep.equal([]);
  });

  it('finds control and user-defined tokens in a text, and no ordinary one', () => {
    const end = tiny.id('<|im_end|>');
    const typed = (type: number) => tokenizerOf(tiny.with({token_type: replaced(tiny.types, end, type)}));
    for (const type of [2, 3, 4]) expect(encode(typed(type), 'a<|im_end|>')).to.have.length(2);
    for (const type of [1, 5]) {
      expect(encode(typed(type), 'a<|im_end|>')).to.have.length.above(2);
      expect(decode(typed(type), [end])).to.equal('<|im_end|>');
    }
  });

  it('keeps a word that is a token where the merges would not make it, for llama-bpe alone', () => {
    const rest = (tiny.metadata[`${GGML}merges`] as string[]).filter((merge) => merge !== 'worl d');
    const world = tiny.id('world');
    expect(encode(tokenizerOf(tiny.with({pre: 'llama-bpe', merges: rest})), 'world')).to.deep.equal([world]);
    expect(encode(tokenizerOf(tiny.with({pre: 'gpt-2', merges: rest})), 'world')).to.have.length(2);
  });

  it('takes a token that JavaScript has another use for', () => {
    const at = tiny.id('world');
    const fields = tiny.with({tokens: replaced(tiny.tokens, at, '__proto__'), merges: []});
    expect(decode(tokenizerOf(fields), [at])).to.equal('__proto__');
  });

  it('tells empty tokens apart', () => {
    const fields = tiny.with({tokens: replaced(replaced(tiny.tokens, 296, ''), 297, ''), merges: []});
    expect(decode(tokenizerOf(fields), [296, 297])).to.equal('[EMPTY_296][EMPTY_297]');
  });

  it('begins and ends with tokens where the file says so, or the pre-tokenizer does', () => {
    const ids = (fields: Fields) => tokenizerOf(tiny.with(fields)).encode('a').ids;
    const a = tiny.id('a');
    expect(ids({add_bos_token: true})).to.deep.equal([1, a]);
    expect(ids({add_bos_token: true, add_eos_token: true})).to.deep.equal([1, a, 2]);
    expect(ids({add_bos_token: undefined})).to.deep.equal([a]);
    expect(ids({add_bos_token: undefined, pre: 'llama-bpe'})).to.deep.equal([1, a]);
    expect(ids({add_bos_token: false, pre: 'llama-bpe'})).to.deep.equal([a]);
    expect(encode(tokenizerOf(tiny.with({add_bos_token: true})), 'a')).to.deep.equal([a]);
  });

  it('reads typed arrays and 64-bit integers', () => {
    const fields = tiny.with({token_type: Int32Array.from(tiny.types), bos_token_id: 1n, add_bos_token: true});
    expect(tokenizerOfGGUF(metadataOf(fields))).to.deep.equal(
      tokenizerOfGGUF(metadataOf(tiny.with({add_bos_token: true}))),
    );
  });

  it('is JSON', () => {
    const made = tokenizerOfGGUF(metadataOf(tiny.metadata));
    expect(JSON.parse(JSON.stringify(made))).to.deep.equal(made);
  });

  const refusals: [string, () => Fields, string][] = [
    ['no model', () => ({model: undefined}), 'model is missing; accepted: gpt2, llama'],
    ['another model', () => ({model: 'bert'}), 'model is "bert"; accepted: gpt2, llama'],
    ['no pre-tokenizer', () => ({pre: undefined}), 'pre is missing; accepted: gpt-2, '],
    ['a pre-tokenizer of no name', () => ({pre: 7}), 'pre is 7; accepted: gpt-2, '],
    ['no tokens', () => ({tokens: undefined}), 'tokens is missing; accepted: an array of strings'],
    ['tokens of numbers', () => ({tokens: [1]}), 'tokens[0] is 1; accepted: a string'],
    [
      'a token twice',
      () => ({tokens: [...tiny.tokens, 'a']}),
      'tokens[298] is "a"; accepted: a text that token 101 does not have',
    ],
    ['no types', () => ({token_type: undefined}), 'token_type is missing; accepted: an array of 298 numbers, one for'],
    ['too few types', () => ({token_type: [1]}), 'token_type is an array of 1; accepted: an array of 298 numbers'],
    ['an unknown type', () => ({token_type: replaced(tiny.types, 9, 7)}), 'token_type[9] is 7; accepted: 1 to 6'],
    ['no merges', () => ({merges: undefined}), 'merges is missing; accepted: an array of strings'],
    ['a merge of one', () => ({merges: ['h e', 'he']}), 'merges[1] is "he"; accepted: two tokens with a space between'],
    ['a merge to no token', () => ({merges: ['x x']}), 'merges[0] is "x x"; accepted: two tokens with a space between'],
    [
      'an id beyond the end',
      () => ({add_bos_token: true, bos_token_id: 298}),
      'bos_token_id is 298; accepted: a token id',
    ],
    [
      'a missing id',
      () => ({add_bos_token: true, bos_token_id: undefined}),
      'bos_token_id is missing; accepted: a token',
    ],
    ['a flag that is none', () => ({add_bos_token: 1}), 'add_bos_token is 1; accepted: true, false'],
  ];
  for (const [what, fields, message] of refusals) {
    it(`refuses ${what} by name`, () => {
      expect(() => tokenizerOf(tiny.with(fields()))).to.throw(`GGUF: tokenizer.ggml.${message}`);
    });
  }
});
