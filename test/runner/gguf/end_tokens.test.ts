import {expect} from 'chai';
import {endTokens} from '../../../runner/gguf/gguf_tokenizer';
import {metadataOf, replaced, TinyTokenizer, type Fields} from './tiny_tokenizer';

describe('endTokens', () => {
  let tiny: TinyTokenizer;
  before(async () => {
    tiny = await TinyTokenizer.load();
  });

  const of = (fields: Fields) => endTokens(metadataOf(tiny.with(fields)));

  it('are the EOS token and the control tokens that end a turn', () => {
    expect(of({})).to.deep.equal([2, 0]);
    expect(of({eos_token_id: 3, eot_token_id: 7n})).to.deep.equal([3, 7, 2, 0]);
    expect(of({eos_token_id: undefined})).to.deep.equal([2, 0]);
  });

  it('have no ordinary token that looks like one', () => {
    expect(of({token_type: replaced(tiny.types, 0, 1)})).to.deep.equal([2]);
    expect(of({tokens: replaced(tiny.tokens, 200, '</s>')})).to.deep.equal([2, 0]);
    expect(of({tokens: replaced(tiny.tokens, 200, '</s>'), token_type: replaced(tiny.types, 200, 3)})).to.deep.equal([
      2, 0, 200,
    ]);
  });

  it('refuses an id beyond the vocabulary', () => {
    expect(() => of({eos_token_id: 298})).to.throw(
      'GGUF: tokenizer.ggml.eos_token_id is 298; accepted: a token id from 0 to 297',
    );
  });
});
