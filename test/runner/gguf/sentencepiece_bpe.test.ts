import {expect} from 'chai';
import {tokenizerOfGGUF} from '../../../runner/gguf/gguf_tokenizer';
import {decode, encode} from '../../../runner/tokenizer';
import {GGML, json, metadataOf, tokenizerOf, type Case, type Fields} from './tiny_tokenizer';

describe('tokenizerOfGGUF, BPE as SentencePiece has it', () => {
  type Vocabularies = Record<'llama' | 'gemma', {metadata: Fields; cases: Case[]}>;
  let vocabularies: Vocabularies;
  before(async () => {
    vocabularies = await json<Vocabularies>('sentencepiece');
  });

  for (const name of ['llama', 'gemma'] as const) {
    it(`makes the tokens of a vocabulary in the way of ${name}, and text of them again`, () => {
      const {metadata, cases} = vocabularies[name];
      const tokenizer = tokenizerOf(metadata);
      for (const {text, ids, decoded = text} of cases) {
        expect(encode(tokenizer, text), text).to.deep.equal(ids);
        // Its decoder of bytes takes U+FEFF for a byte-order mark.
        if (!text.includes('\ufeff')) expect(decode(tokenizer, ids), text).to.equal(decoded);
      }
    });
  }

  it('puts the BOS token and a space before a text where the file does not say', () => {
    const {metadata: whole} = vocabularies.llama;
    const said = [`${GGML}add_bos_token`, `${GGML}add_space_prefix`];
    const metadata = Object.fromEntries(Object.entries(whole).filter(([field]) => !said.includes(field)));
    expect(tokenizerOfGGUF(metadataOf(metadata))).to.deep.equal(tokenizerOfGGUF(metadataOf(whole)));
    expect(tokenizerOf(metadata).encode('').ids).to.deep.equal([1]);
  });

  it('refuses scores that are missing, or not one for each token', () => {
    const {metadata} = vocabularies.llama;
    expect(() => tokenizerOf({...metadata, [`${GGML}scores`]: undefined})).to.throw(
      'GGUF: tokenizer.ggml.scores is missing; accepted: an array of 420 numbers, one for each token',
    );
    expect(() => tokenizerOf({...metadata, [`${GGML}scores`]: new Float32Array(3)})).to.throw(
      'GGUF: tokenizer.ggml.scores is an array of 3; accepted: an array of 420 numbers',
    );
  });
});
