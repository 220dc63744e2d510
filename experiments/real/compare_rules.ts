import {dispose} from '@tensorflow/tfjs-core';
import {median} from '../../bench/statistics';
import {mean} from '../statistics';
import {compare, type Distributions, distributionsOf} from './distributions';
import type {Measurer} from './measurer';
import {readRows} from './prefill';
import {type QualityRow, rounded} from './results';
import type {LayerRules} from './rules';

/** Rows of every layer and head whose true attention is added up. */
const MASS_ROWS = 64;

/** Share of the rows that are the worst. */
const WORST = 0.05;

/** Rows before this have few blocks to skip. */
const FIRST_ROW = 256;

/**
 * Reads a text with exact attention, then by each rule: a step each.
 *
 * @param add takes each row as it comes.
 */
export async function compareRules(
  measurer: Measurer,
  length: number,
  text: string,
  rules: readonly LayerRules[],
  add: (row: QualityRow) => void,
): Promise<void> {
  const {model, options, tokens} = measurer;
  const ids = tokens(text, length);
  const rows = spread(options.rows, length);
  const massRows = spread(MASS_ROWS, length);
  const next = rows.map((row) => ids[row + 1]);
  let exact: {distributions: Distributions; loss: number} | undefined;
  await measurer.step(`exact ${text} ${length}`, async () => {
    const {hidden} = await readRows(model, ids, rows);
    try {
      const distributions = await distributionsOf(model, hidden);
      const {losses} = await compare(model, hidden, distributions, next);
      exact = {distributions, loss: mean(Array.from(losses))};
    } finally {
      hidden.dispose();
    }
  });
  if (exact === undefined) return;
  const {distributions, loss} = exact;
  try {
    for (const rule of rules) {
      await measurer.step(`${rule.name} ${text} ${length}`, async () => {
        const {hidden, densities, keptShares} = await readRows(model, ids, rows, rule, massRows);
        try {
          const {kl, losses, best} = await compare(model, hidden, distributions, next);
          const kept = [...keptShares].sort((a, b) => a - b);
          const row: QualityRow = {
            ...{length, text, rule: rule.name},
            density: rounded(mean(densities.flat())),
            kl: rounded(mean(Array.from(kl))),
            klMedian: rounded(median(Array.from(kl))),
            top1: rounded(mean(Array.from(best, (id, i) => Number(id === distributions.best[i])))),
            lossDifference: rounded(mean(Array.from(losses)) - loss),
            keptMass: rounded(mean(kept)),
            keptMassWorst: rounded(mean(kept.slice(0, Math.ceil(WORST * kept.length)))),
            densities: densities.map((heads) => heads.map((x) => Number(x.toFixed(4)))),
          };
          add(row);
          measurer.log(
            `        density ${row.density.toFixed(3)}, KL ${row.kl.toFixed(5)}, top-1 ${row.top1.toFixed(3)}, ` +
              `kept ${row.keptMass.toFixed(4)}`,
          );
        } finally {
          hidden.dispose();
        }
      });
    }
  } finally {
    dispose(distributions.chunks);
  }
}

/** Rows evenly spread over a text, each with a token after it. */
export function spread(count: number, length: number): number[] {
  const first = Math.min(FIRST_ROW, Math.floor(length / 2));
  const rows = Array.from({length: count}, (_, i) => {
    return Math.round(first + (count === 1 ? 0 : (i / (count - 1)) * (length - 2 - first)));
  });
  return [...new Set(rows)];
}
