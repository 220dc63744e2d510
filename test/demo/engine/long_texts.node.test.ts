import type {Tokenizer} from '@huggingface/tokenizers';
import {expect} from 'chai';
import {ChatWriter} from '../../../demo/engine/chat_prompt';
import {buildPrompt, previewPrompt} from '../../../demo/engine/prompt';
import type {PromptRequest} from '../../../demo/engine/protocol';
import {createTokenizer, decode, encode} from '../../../runner/tokenizer';
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

  const MEGABYTES = 8 * 2 ** 20;
  const scripts: Record<string, {text: string; hasSentences?: boolean}> = {
    Chinese: {text: '他慢慢地走过了那条长长的街道。没有人知道他要去哪里？', hasSentences: true},
    'Chinese without an end': {text: '他慢慢地走过了那条长长的街道没有人知道他要去哪里'},
    Arabic: {text: 'كان يمشي ببطء في الشارع الطويل، ولم يكن أحد يعرف إلى أين يذهب؟ ', hasSentences: true},
    'no sentence ends': {text: 'walking along the street and nobody knew where '},
    'short lines': {text: 'a line\n'},
    'control characters': {text: '\0\u0001\u0007\u001b[31m\u007f\u0085\u200b\u202e text\r\n\t'},
    emoji: {text: '👩‍👩‍👧‍👦 🏳️‍🌈 '},
    'halves of characters': {text: '\ud800x\udc00 '},
  };
  for (const [name, {text, hasSentences}] of Object.entries(scripts)) {
    it(`takes 8 MiB of ${name}`, () => {
      const long = text.repeat(Math.ceil(MEGABYTES / text.length));
      const short = text.repeat(Math.ceil(1000 / text.length));
      if (!name.startsWith('halves')) expect(decode(demo, encode(demo, short)) === short).to.equal(true);
      expect(buildPrompt(demo, long, request(2048)).ids).to.have.length(2048);
      const find = () => buildPrompt(demo, long, {...request(2048), task: 'find'});
      if (hasSentences) expect(find().ids).to.have.length(2048);
      else expect(find).to.throw('no end of a sentence');
      const writer = new ChatWriter(demo, {template: '{% for m in messages %}[{{ m.content | trim }}]{% endfor %}'});
      const conversation = (document: string) => ({
        system: 'Be brief.',
        document,
        turns: [{role: 'user' as const, content: short}],
      });
      const {beginning, isEstimate, tokens} = writer.fit(conversation(long), 30_000);
      expect(isEstimate).to.equal(true);
      expect(tokens).to.be.above(1_000_000);
      expect(writer.write(conversation(beginning!)).length).to.be.within(29_000, 30_000);
      expect(writer.tooLong(conversation(long), 30_000)).to.be.within(0.8 * tokens, 1.2 * tokens);
      expect(writer.tooLong(conversation(beginning!), 30_000)).to.equal(undefined);
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
