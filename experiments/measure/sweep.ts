import type {Inputs} from '../../bench/captured_attention';
import type {Experimenter} from '../experimenter';
import {promptSet} from '../prompts/prompt_set';
import type {Prompt, Task} from '../prompts/tasks';
import type {Needle, SweepRow} from '../results';
import {mean, meanEstimate, wilson} from '../statistics';
import {withCaptured} from './capture';
import {type Reading, readPrompt} from './reading';
import {timeAttention} from './timing';
import {exactVariant, type Variant} from './variant';

export interface SweptVariant {
  variant: Variant;
  settings: SweepRow['settings'];
}

/** Layers whose attention is timed: an early and a late one. */
const TIMED_LAYERS = [1, 5];
const TIMING_SECONDS = 0.15;

/**
 * Reads the same prompts with exact attention and with each variant, length by length. Variants that the run has rows of are
 * left out.
 *
 * @param variantsOf the variants at a length, made when it comes, from the prompts there.
 * @param timed whether the time of attention says something: not where stages are chains of tfjs ops.
 */
export async function sweep(
  experimenter: Experimenter,
  variantsOf: (length: number, prompts: readonly Prompt[]) => Promise<SweptVariant[]> | SweptVariant[],
  timed = true,
): Promise<void> {
  const {subject, options, device} = experimenter;
  for (const length of options.lengths) {
    const prompts = options.tasks.flatMap((task) =>
      promptSet(subject.tokenizer, subject.books, task, length, options.questions),
    );
    const exactSwept: SweptVariant = {variant: exactVariant, settings: {}};
    const rowOf = (variant: string, settings: SweepRow['settings']) => JSON.stringify([variant, settings]);
    const done = ({variant, settings}: SweptVariant) =>
      experimenter.run.sweep?.some(
        (row) => row.length === length && rowOf(row.variant, row.settings) === rowOf(variant.label, settings),
      ) ?? false;
    let variants: SweptVariant[] = [];
    await experimenter.step('sweep', `variants for ${length}`, async () => {
      const all = await variantsOf(length, prompts);
      variants = all.filter((swept) => !done(swept));
      return [];
    });
    if (variants.length === 0) continue;
    const exact: Reading[] = [];
    await experimenter.step('sweep', `exact ${length}`, async () => {
      for (const prompt of prompts) exact.push(await readPrompt(subject, prompt, exactVariant));
      return done(exactSwept) ? [] : [summarise(length, exactSwept, prompts, exact, exact)];
    });
    if (exact.length < prompts.length) continue;
    const timer = timed && options.timing ? device.timer : undefined;
    const readVariants = async (captured: readonly Inputs[]) => {
      for (const swept of variants) {
        await experimenter.step('sweep', `${swept.variant.label} ${length}`, async () => {
          const readings: Reading[] = [];
          for (const prompt of prompts) readings.push(await readPrompt(subject, prompt, swept.variant));
          const row = summarise(length, swept, prompts, readings, exact);
          experimenter.place.log(describe(row));
          if (timer) row.time = await timeAttention(timer, swept.variant, captured, TIMING_SECONDS);
          return [row];
        });
      }
    };
    await (timer ? withCaptured(subject, prompts[0].ids, TIMED_LAYERS, readVariants) : readVariants([]));
  }
}

export function summarise(
  length: number,
  {variant, settings}: SweptVariant,
  prompts: readonly Prompt[],
  readings: readonly Reading[],
  exact: readonly Reading[],
): SweepRow {
  const needle: Partial<Record<Task, Needle>> = {};
  for (const task of new Set(prompts.map((prompt) => prompt.task))) {
    const answers = readings.flatMap(({correct}, i) => (prompts[i].task === task ? correct : []));
    const correct = answers.filter(Boolean).length;
    needle[task] = {correct, asked: answers.length, share: wilson(correct, answers.length)};
  }
  return {
    length,
    variant: variant.label,
    settings,
    density: mean(readings.map(({density}) => density)),
    loss: mean(readings.map(({loss}) => loss)),
    lossDifference: meanEstimate(readings.map(({loss}, i) => loss - exact[i].loss)),
    needle,
  };
}

/** A row for the person who waits. */
function describe({density, lossDifference, needle}: SweepRow): string {
  const answers = Object.entries(needle).map(([task, {correct, asked}]) => `${task} ${correct}/${asked}`);
  return `        density ${density.toFixed(3)}, loss +${lossDifference.value.toFixed(4)}, ${answers.join(', ')}`;
}
