import type {Tokenizer} from '@huggingface/tokenizers';
import {expect} from 'chai';
import {openModelFiles} from '../../hosts/local_model';
import {chatTemplate, type ChatMessage} from '../../runner/chat_template';
import {GGUFFile} from '../../runner/gguf/gguf_file';
import {endTokens, tokenizerOfGGUF} from '../../runner/gguf/gguf_tokenizer';
import {createTokenizer, decode, encode} from '../../runner/tokenizer';
import {fixture} from '../setup/environment';
import {realModels, type ModelName} from './models';

/** `about` in tokens.json says what each field is. */
interface TokenCase {
  ids: number[];
  tok?: number[];
  text?: string;
  tok_text?: string;
  huggingface?: 'tok' | 'llama.cpp';
}

interface Tokens {
  strings: {name: string; text: string}[];
  models: Record<ModelName, {cases: TokenCase[]}>;
}

interface ChatCase {
  messages?: ChatMessage[];
  on: string;
  ids: number[];
}

interface Chats {
  conversations: {name: string; messages: ChatMessage[]}[];
  models: Record<
    ModelName,
    {template: string; bos: string; eos: string; cases: ChatCase[]; tools?: ChatCase & {tools: object[]}}
  >;
}

/** Strings whose tokens are the published tokenizer's and not llama.cpp's, which composes nothing and parses `</s>`. */
const NOT_AS_LLAMA_CPP: Record<ModelName, string[]> = {
  smollm2: [],
  'qwen2.5-coder-0.5b': [
    'korean NFD',
    'NFD',
    'NFC singleton',
    'combining alone',
    'special padding name',
    'special closing s',
    'special NFD beside',
  ],
};

const END_TOKENS: Record<ModelName, string[]> = {
  smollm2: ['<|im_end|>', '<|endoftext|>'],
  'qwen2.5-coder-0.5b': ['<|im_end|>', '<|endoftext|>'],
};

const json = async <T>(path: string): Promise<T> => JSON.parse(new TextDecoder().decode(await fixture(path)));
const secondsOf = (run: () => unknown) => {
  const start = performance.now();
  run();
  return (performance.now() - start) / 1000;
};

for (const {name, path} of realModels()) {
  describe(`the tokenizer of ${name}`, () => {
    let metadata: ReadonlyMap<string, unknown>;
    let tokenizer: Tokenizer;
    before(async () => {
      ({metadata} = await GGUFFile.open((await openModelFiles(path))[0]));
      tokenizer = createTokenizer(tokenizerOfGGUF(metadata));
    });

    it('makes the tokens of the published tokenizer of 91 strings, and text of them again', async () => {
      const {strings, models} = await json<Tokens>('test/real/tokens.json');
      const {cases} = models[name];
      expect(cases).to.have.length(91);
      const notAsLlamaCpp = strings.filter(({name: what, text}, i) => {
        const {ids, tok, tok_text: published, text: llamaCpp} = cases[i];
        const made = encode(tokenizer, text);
        expect(made, what).to.deep.equal(tok ?? ids);
        expect(decode(tokenizer, made), what).to.equal(published ?? llamaCpp ?? text);
        return made.join() !== ids.join();
      });
      expect(notAsLlamaCpp.map((string) => string.name)).to.deep.equal(NOT_AS_LLAMA_CPP[name]);
    });

    it("renders its template to llama.cpp's tokens of the prompt", async () => {
      const {conversations, models} = await json<Chats>('test/runner/chat.json');
      const {template, bos, eos, cases, tools} = models[name];
      expect(metadata.get('tokenizer.chat_template')).to.equal(template);
      const chat = chatTemplate(template, {bosToken: bos, eosToken: eos});
      const prompts = conversations.map(({messages}, i) => ({
        ...cases[i],
        messages,
        tools: undefined as object[] | undefined,
      }));
      if (tools) prompts.push({...tools, messages: tools.messages!});
      for (const {messages, tools: given, on, ids} of prompts) {
        const prompt = chat.render(messages, {addGenerationPrompt: true, tools: given});
        expect(prompt).to.equal(on);
        const made = encode(tokenizer, prompt);
        // What the published tokenizer composes, llama.cpp does not.
        const composes = name === 'qwen2.5-coder-0.5b' && prompt !== prompt.normalize('NFC');
        if (composes) expect(decode(tokenizer, made)).to.equal(prompt.normalize('NFC'));
        else expect(made).to.deep.equal(ids);
      }
    });

    it('ends an answer with the tokens that end a turn', () => {
      expect(endTokens(metadata).map((id) => decode(tokenizer, [id]))).to.deep.equal(END_TOKENS[name]);
    });

    it('is made, and reads 100,000 characters, in seconds', async () => {
      const book = new TextDecoder().decode(await fixture('demo/public/books/dubliners.txt')).slice(0, 100_000);
      let fresh = tokenizer;
      const making = secondsOf(() => (fresh = createTokenizer(tokenizerOfGGUF(metadata))));
      let ids: number[] = [];
      const encoding = secondsOf(() => (ids = encode(fresh, book)));
      console.log(`      made in ${making.toFixed(2)} s, ${ids.length} tokens in ${encoding.toFixed(2)} s`);
      expect(decode(fresh, ids)).to.equal(book);
      expect(making).to.be.below(10);
      expect(encoding).to.be.below(10);
    });
  });
}
