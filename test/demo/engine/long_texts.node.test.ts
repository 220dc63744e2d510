import type {Tokenizer} from '@huggingface/tokenizers';
import {expect} from 'chai';
import {ChatWriter} from '../../../demo/engine/chat_prompt';
import {buildPrompt, previewPrompt} from '../../../demo/engine/prompt';
import type {PromptRequest} from '../../../demo/engine/protocol';
import {createTokenizer} from '../../../runner/tokenizer';
import {fixture} from '../../setup/environment';

/** Of letters by themselves, so that tokens are as many as characters. */
const letters = () =>
  createTokenizer({
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: {type: 'Fuse'},
    model: {
      type: 'BPE',
      unk_token: '?',
      vocab: Object.fromEntries(
        [...'? abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.,\n'].map((c, i) => [c, i]),
      ),
      merges: [],
    },
  });

describe('texts of more tokens than a call takes arguments', () => {
  let demo: Tokenizer;
  before(async () => {
    demo = createTokenizer(JSON.parse(new TextDecoder().decode(await fixture('demo/public/model/tokenizer.json'))));
  });

  const request = (length: number): PromptRequest => ({
    task: 'continue',
    length,
    seed: 1,
    facts: [{fact: {adjective: 'hidden', noun: 'falcon', number: '57470'}, depth: 0.5}],
    asked: 0,
  });

  const texts: Record<string, string> = {
    'one sentence without an end': 'word and '.repeat(200_000),
    'one word': 'x'.repeat(1_000_000),
    'one sentence, then another': `${'word and '.repeat(200_000)}end. And this is another one.`,
    'many line ends': '\n'.repeat(500_000),
  };
  for (const [name, text] of Object.entries(texts)) {
    it(`makes prompts of ${name}`, () => {
      for (const tokenizer of [letters(), demo]) {
        const start = performance.now();
        for (const length of [512, 16_384]) {
          expect(buildPrompt(tokenizer, text, request(length)).ids).to.have.length(length);
          expect(previewPrompt(tokenizer, text, request(length)).excerpts).to.have.length(1);
        }
        expect(performance.now() - start).to.be.below(20_000);
      }
    });
  }

  it('puts a fact into a long text of sentences', () => {
    const text = 'It was a long day. '.repeat(100_000);
    const {ids, fact} = buildPrompt(letters(), text, {...request(200_000), task: 'find'});
    expect(ids).to.have.length(200_000);
    expect(fact!.start).to.be.closeTo(100_000, 1000);
  });

  it('writes a chat about a document of a million tokens', () => {
    const writer = new ChatWriter(letters());
    const conversation = {
      system: '',
      document: 'x'.repeat(1_000_000),
      turns: [{role: 'user' as const, content: 'What?'}],
    };
    expect(writer.write(conversation).length).to.be.above(1_000_000);
    expect(writer.fit(conversation, 1000)).to.include({tokens: 1_000_000, isEstimate: true});
  });
});
