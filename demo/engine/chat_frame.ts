import type {Tokenizer} from '@huggingface/tokenizers';
import {chatTemplate} from '../../runner/chat_template';
import type {ChatForm} from '../../runner/llama/chat_form';
import {encode} from '../../runner/tokenizer';

/** Tokens that a model's form of a chat puts before and after what the user says. */
export interface ChatFrame {
  before: readonly number[];
  after: readonly number[];
}

/** Stands for what the user says; no template has it. */
const SAID = '\u{F8FF}said\u{F8FF}';

/** @throws Error if the template leaves out what the user says. */
export function chatFrame(tokenizer: Tokenizer, chat: ChatForm): ChatFrame {
  const written = chatTemplate(chat.template, chat).render([{role: 'user', content: SAID}], {
    addGenerationPrompt: true,
  });
  const [before, after, ...more] = written.split(SAID);
  if (after === undefined || more.length > 0) {
    throw new Error(
      `chat template: writes what the user says ${more.length === 0 ? 'nowhere' : 'more than once'}; accepted: once`,
    );
  }
  return {before: encode(tokenizer, before), after: encode(tokenizer, after)};
}
