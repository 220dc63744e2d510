import {expect} from 'chai';
import {createTokenizer, decode, encode, encodeBeginning} from '../../runner/tokenizer';
import {fixture} from '../setup/environment';

/** A tokenizer of single letters. */
const letters = (changes: object = {}, model: object = {}) => ({
  version: '1.0',
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: {type: 'Fuse'},
  model: {type: 'BPE', unk_token: null, vocab: {a: 0, b: 1, ' ': 2}, merges: [], ...model},
  ...changes,
});

const split = (Regex: string) => ({type: 'Split', pattern: {Regex}, behavior: 'Isolated', invert: false});

describe('hostile tokenizers', () => {
  it('refuses an expression that takes exponential time, before a text does', () => {
    const pre_tokenizer = {type: 'Sequence', pretokenizers: [split('a'), split('(a+)+$')]};
    const start = performance.now();
    expect(() => encode(createTokenizer(letters({pre_tokenizer})), `${'a'.repeat(40)}b`)).to.throw(
      /^tokenizer\.json: pre_tokenizer\.pretokenizers\.1\.pattern: the expression "\(a\+\)\+\$" repeats a group/,
    );
    expect(performance.now() - start).to.be.below(10_000);
    const replace = {type: 'Replace', pattern: {Regex: '(a|a)*$'}, content: ''};
    expect(() => createTokenizer(letters({normalizer: replace}))).to.throw(/^tokenizer\.json: normalizer\.pattern: /);
    expect(() => createTokenizer(letters({decoder: replace}))).to.throw(/^tokenizer\.json: decoder\.pattern: /);
  });

  it('refuses parts that make a text grow without bound, before a text does', () => {
    const replace = (found: string, content: string) => ({type: 'Replace', pattern: {String: found}, content});
    const sequence = (...normalizers: object[]) => ({type: 'Sequence', normalizers});
    const doubling = sequence(...Array.from({length: 30}, () => replace('a', 'aa')));
    const metaspace = (replacement: string) => ({type: 'Metaspace', replacement, prepend_scheme: 'always'});
    const refused: Array<[object, RegExp]> = [
      [{normalizer: doubling}, /normalizer and pre_tokenizer may make a text 1e\+9 times as long; accepted: up to 100/],
      [{pre_tokenizer: metaspace('long '.repeat(20_000))}, /may make a text 100000 times as long/],
      [{normalizer: replace('a', ' '.repeat(20)), pre_tokenizer: metaspace('12345678')}, /may make a text 160 times/],
      [{decoder: {type: 'Replace', pattern: {Regex: 'a'}, content: 'b'.repeat(101)}}, /decoder may make a text 101/],
    ];
    for (const [parts, message] of refused) expect(() => createTokenizer(letters(parts))).to.throw(message);
    const usual = sequence({type: 'Prepend', prepend: '▁'}, replace('  ', '▁▁'), replace("''", '"'));
    createTokenizer(letters({normalizer: usual, pre_tokenizer: metaspace('▁')}));
    // None of which finds what another has written.
    const written = [...'…—½¼¾ﬁﬂﬀ№€'].map((sign) => replace(sign, '12345'));
    createTokenizer(letters({normalizer: sequence(...written), pre_tokenizer: metaspace('▁')}));
  });

  it('refuses what the library cannot use, in words of its own', () => {
    const refused: [object, RegExp][] = [
      [{}, /^tokenizer\.json cannot be used: /],
      [letters({added_tokens: null}), /^tokenizer\.json cannot be used: /],
      [letters({added_tokens: 7}), /^tokenizer\.json: added_tokens is 7; accepted: a list/],
      [letters({added_tokens: [null]}), /^tokenizer\.json: added_tokens\[0\]\.id is missing; accepted: integers/],
      [letters({added_tokens: [{id: 1, content: 5}]}), /added_tokens\[0\]\.content is 5; accepted: a text/],
      [letters({}, {vocab: {a: 0.5}}), /model\.vocab\["a"\] is 0\.5; accepted: integers from 0/],
      [letters({}, {merges: undefined}), /^tokenizer\.json cannot be used: /],
      [letters({pre_tokenizer: split('[')}), /^tokenizer\.json cannot be used: /],
      [letters({decoder: {type: 'Unheard'}}), /^tokenizer\.json cannot be used: Unknown Decoder type: Unheard/],
    ];
    for (const [json, message] of refused) {
      expect(() => createTokenizer(json), `${message}`)
        .to.throw(Error, message)
        .with.property('constructor', Error);
    }
  });

  it('refuses a text for which there is no token, and drops ids of which there is no text', () => {
    const unknown = createTokenizer(letters({}, {unk_token: '?'}));
    expect(() => encode(unknown, 'abc')).to.throw('the text cannot be tokenized: no token is "?"');
    const replaced = createTokenizer(letters({decoder: {type: 'Replace', pattern: {String: 'b'}, content: 'c'}}));
    expect(decode(replaced, [0, 5, 1])).to.equal('ac');
    expect(decode(replaced, [5])).to.equal('');
  });

  it('encodes one word of 400,000 letters', async () => {
    const demo = createTokenizer(
      JSON.parse(new TextDecoder().decode(await fixture('demo/public/model/tokenizer.json'))),
    );
    const word = 'qx'.repeat(200_000);
    expect(encode(demo, word).length).to.be.above(120_000);
    expect(decode(demo, encode(demo, word))).to.equal(word);
  });

  it('encodes the beginning of a text as the whole text is', async () => {
    const demo = createTokenizer(
      JSON.parse(new TextDecoder().decode(await fixture('demo/public/model/tokenizer.json'))),
    );
    const book = new TextDecoder().decode(await fixture('demo/public/books/dubliners.txt')).slice(0, 200_000);
    const whole = encode(demo, book);
    for (const least of [1, 5000, 40_000, 1e9]) {
      const {ids, characters} = encodeBeginning(demo, book, least);
      expect(ids.length).to.be.at.least(Math.min(least, whole.length));
      expect(ids.length).to.be.below(least + 2 ** 15);
      expect(ids).to.deep.equal(whole.slice(0, ids.length));
      expect(characters).to.equal(decode(demo, ids).length);
    }
  });
});
