import type {Tokenizer} from '@huggingface/tokenizers';
import {chatTemplate, type ChatMessage, type ChatTemplate} from '../../runner/chat_template';
import {Failure} from '../../runner/failure';
import type {ChatForm} from '../../runner/llama/chat_form';
import {plainText} from '../../runner/plain_text';
import {decode, encode, encodeBeginning, encodePlain} from '../../runner/tokenizer';
import type {Conversation, DocumentFit} from './chat_protocol';

/** Stands for what the system message says; no template has it. */
const TOLD = '\u{F8FF}told\u{F8FF}';

/** Begin in ways that a tokenizer joins to what is before or does not; none begins as another. */
const QUESTIONS = ['a', '1', '?'];

/** A document of so many times what fits, and of so many tokens, is counted no further. */
const [COUNTED, LEAST_COUNTED] = [4, 2 ** 16];

/** Characters a token, of texts that need not be looked at to be known as too long: English prose takes about 4. */
const CHARACTERS_PER_TOKEN = 8;

/** Tokens that a document, cut and encoded again with its neighbours, may have more than before. */
const SLACK = 8;

/**
 * Writes conversations as tokens: in the model's form of chats, else as a text to be continued, "document\n\nquestion\n", where the system
 * prompt, which such a model was never told to follow, is left out.
 */
export class ChatWriter {
  private readonly template?: ChatTemplate;
  /** Whether the template writes system messages; else what they say begins the first turn. */
  private readonly hasSystem: boolean;

  constructor(
    private readonly tokenizer: Tokenizer,
    form?: ChatForm,
  ) {
    this.template = form && chatTemplate(form.template, form);
    this.hasSystem = this.template !== undefined && writesSystem(this.template);
  }

  /** @throws Failure if the model's form refuses the conversation. */
  write(conversation: Conversation): number[] {
    return encode(this.tokenizer, this.text(conversation));
  }

  /** The same; one without a question with what stands around one. */
  draft(conversation: Conversation): number[] {
    return this.write(withQuestion(conversation));
  }

  /** The tokens with which all prompts about a document begin, whatever is asked. */
  beginning({system, document}: Pick<Conversation, 'system' | 'document'>): number[] {
    const [first, ...others] = QUESTIONS.map((content) =>
      this.write({system, document, turns: [{role: 'user', content}]}),
    );
    const end = first.findIndex((id, at) => others.some((ids) => ids[at] !== id));
    return first.slice(0, end);
  }

  /** Tokens of a text by itself. */
  lengthOf(text: string): number {
    return encodePlain(this.tokenizer, text).length;
  }

  /**
   * Tokens of the first text of a conversation that is too long by itself, estimated, so that a text of any length is never encoded as
   * a whole only to say so; nothing where all may fit.
   *
   * @param most tokens that the whole may have.
   */
  tooLong({document, turns}: Conversation, most: number): number | undefined {
    for (const text of [document, ...turns.map(({content}) => content)]) {
      if (text.length <= CHARACTERS_PER_TOKEN * most) continue;
      const {ids, characters} = encodeBeginning(this.tokenizer, text, most + 1);
      if (characters < text.length) return Math.round((ids.length * text.length) / characters);
    }
    return undefined;
  }

  /** @param most tokens that the whole may have, its answer excepted. */
  fit(conversation: Conversation, most: number): DocumentFit {
    const others = this.draft({...conversation, document: ''}).length;
    const room = Math.max(0, most - others - SLACK);
    const {document} = conversation;
    const {ids, characters} = encodeBeginning(this.tokenizer, document, Math.max(COUNTED * room, LEAST_COUNTED));
    const isWhole = characters === document.length;
    const tokens = isWhole ? ids.length : Math.round((ids.length * document.length) / characters);
    const fit = {tokens, isEstimate: !isWhole, room};
    // The end may be half a character.
    return tokens <= room
      ? fit
      : {...fit, beginning: decode(this.tokenizer, ids.slice(0, room)).replace(/\uFFFD+$/, '')};
  }

  private text({system, document, turns}: Conversation): string {
    const {template} = this;
    if (template === undefined) {
      // As it was written, so that what was read and written of it before is found again.
      const text = (document === '' ? '' : `${document}\n\n`) + turns.map(({content}) => `${content}\n`).join('');
      return plainText(this.tokenizer, text);
    }
    const plain = (text: string) => plainText(this.tokenizer, text);
    const told = [system, document].filter((part) => part.trim() !== '').join('\n\n');
    const said = turns.map((turn) => ({...turn, content: plain(turn.content)}));
    try {
      return template.render(messagesOf(plain(told), said, this.hasSystem), {addGenerationPrompt: true});
    } catch (error) {
      throw new Failure('PromptError', (error as Error).message, {cause: error});
    }
  }
}

function messagesOf(told: string, turns: Conversation['turns'], hasSystem: boolean): ChatMessage[] {
  if (told === '') return [...turns];
  if (hasSystem) return [{role: 'system', content: told}, ...turns];
  const [first, ...others] = turns;
  return [{...first, content: `${told}\n\n${first.content}`}, ...others];
}

function withQuestion(conversation: Conversation): Conversation {
  const {turns} = conversation;
  return turns.at(-1)?.role === 'user'
    ? conversation
    : {...conversation, turns: [...turns, {role: 'user', content: ''}]};
}

/** A template may refuse system messages, or leave them out. */
function writesSystem(template: ChatTemplate): boolean {
  const messages = [
    {role: 'system', content: TOLD},
    {role: 'user', content: 'Hello'},
  ];
  try {
    return template.render(messages, {addGenerationPrompt: true}).includes(TOLD);
  } catch {
    return false;
  }
}
