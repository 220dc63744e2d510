import type {Tokenizer} from '@huggingface/tokenizers';
import type {Book} from './book';
import {buildPrompt, type Prompt, questionsOf, type Task} from './tasks';

const SHALLOWEST = 0.05;
const DEEPEST = 0.95;

/**
 * Prompts of one task and length that ask at least so many questions: depths spread evenly from 5 to 95%, books in turn,
 * the same prompts for the same arguments.
 */
export function promptSet(
  tokenizer: Tokenizer,
  books: readonly Book[],
  task: Task,
  length: number,
  questions: number,
): Prompt[] {
  const count = Math.ceil(questions / questionsOf(task));
  return Array.from({length: count}, (_, i) => {
    const depth = SHALLOWEST + (DEEPEST - SHALLOWEST) * (count === 1 ? 0.5 : i / (count - 1));
    return buildPrompt(tokenizer, books[i % books.length], {task, length, depth, seed: 100 + i});
  });
}
