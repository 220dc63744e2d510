import {readFileSync} from 'node:fs';
import {argMax, dispose, type Tensor2D, tidy} from '@tensorflow/tfjs-core';
import type {LlamaModel} from '../../runner/llama/model';
import {type Book, readBook} from '../prompts/book';
import {mean} from '../statistics';
import type {Measurer} from './measurer';
import {readRows} from './prefill';
import {EXACT, rounded, type TaskRow} from './results';
import {type Item, PLACEMENTS, RULER_TASKS, rulerPrompt} from './ruler';
import {inEveryLayer, type Rule} from './rules';

const BOOKS = ['dubliners', 'sense-and-sensibility'];

/** Characters a token: enough of a book for passages that differ. */
const CHARACTERS = 8;

/** Questions after RULER, answered with exact attention and by each rule. */
export async function tasks(measurer: Measurer): Promise<void> {
  const {options, tokenizer, model, run} = measurer;
  const longest = Math.max(...options.lengths);
  let books: Book[] | undefined;
  for (const length of options.lengths) {
    for (const task of RULER_TASKS) {
      const pending = [undefined, ...options.rules].filter(
        (rule) => !measurer.has('tasks', {length, task, rule: rule?.name ?? EXACT}),
      );
      if (pending.length === 0) continue;
      books ??= BOOKS.map((name) => {
        const text = readFileSync(`demo/public/books/${name}.txt`, 'utf8');
        return readBook(tokenizer, name, text.slice(0, CHARACTERS * longest + 20_000));
      });
      const prompts = Array.from({length: options.prompts}, (_, i) =>
        rulerPrompt(tokenizer, books![i % books!.length], task, length, 1000 + i),
      );
      for (const rule of pending) {
        const name = rule?.name ?? EXACT;
        await measurer.step(`${task}, ${name} ${length}`, async () => {
          const row: TaskRow = {length, task, rule: name, density: 1, answers: noAnswers()};
          const densities: number[] = [];
          for (const {ids, items} of prompts) {
            const {correct, density} = await answer(model, ids, items, rule);
            densities.push(density);
            items.forEach(({placement}, i) => {
              ++row.answers[placement].asked;
              row.answers[placement].correct += Number(correct[i]);
            });
          }
          row.density = rounded(mean(densities));
          run.tasks.push(row);
          const counts = PLACEMENTS.map((at) => `${at} ${row.answers[at].correct}/${row.answers[at].asked}`);
          measurer.log(`        density ${row.density.toFixed(3)}, ${counts.join(', ')}`);
        });
      }
    }
  }
}

const noAnswers = () => Object.fromEntries(PLACEMENTS.map((at) => [at, {correct: 0, asked: 0}])) as TaskRow['answers'];

async function answer(
  model: LlamaModel,
  ids: readonly number[],
  items: readonly Item[],
  rule?: Rule,
): Promise<{correct: boolean[]; density: number}> {
  const rows = items.flatMap(({row, answer}) => answer.map((_, i) => row + i));
  const {hidden, densities} = await readRows(model, ids, rows, rule && inEveryLayer(rule));
  try {
    const best = await mostLikely(model, hidden);
    let at = 0;
    const correct = items.map(({answer}) => {
      const own = best.subarray(at, (at += answer.length));
      return answer.every((id, i) => own[i] === id);
    });
    return {correct, density: rule ? mean(densities.flat()) : 1};
  } finally {
    hidden.dispose();
  }
}

async function mostLikely(model: LlamaModel, hidden: Tensor2D): Promise<Int32Array> {
  const best = tidy(() => argMax(model.logitsOf(hidden), 1));
  try {
    return (await best.data()) as Int32Array;
  } finally {
    dispose(best);
  }
}
