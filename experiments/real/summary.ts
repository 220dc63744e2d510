import type {Precision} from '../../bench/our_attention';
import {mean} from '../statistics';
import {type QualityRow, type RealRun, rounded, type TimeRow} from './results';

/** One rule at one length, means over texts; null where it was not measured. */
export interface SummaryRow {
  model: string;
  length: number;
  rule: string;
  texts: number;
  density: number | null;
  kl: number | null;
  top1: number | null;
  /** GPU time of attention, as a share of exact attention's in the same precision in the same run. */
  timeFloat32: number | null;
  timeFloat16: number | null;
  /** Of that, what comes before attention. */
  selectionFloat32: number | null;
  selectionFloat16: number | null;
}

export function summarise({model, quality, time}: RealRun): SummaryRow[] {
  const names = new Set([...quality, ...time].map(({length, rule}) => JSON.stringify([length, rule])));
  return [...names]
    .map((name) => JSON.parse(name) as [number, string])
    .sort((a, b) => a[0] - b[0])
    .map(([length, rule]) => {
      const own = quality.filter((row) => row.length === length && row.rule === rule);
      const timed = (precision: Precision) =>
        time.filter((row) => row.length === length && row.rule === rule && row.precision === precision);
      const of = (value: (row: QualityRow) => number) => meanOrNull(own.map(value));
      return {
        ...{model, length, rule},
        texts: new Set([...own, ...timed('float32')].map(({text}) => text)).size,
        density: of(({density}) => density),
        kl: of(({kl}) => kl),
        top1: of(({top1}) => top1),
        timeFloat32: meanOrNull(timed('float32').map(timeShare)),
        timeFloat16: meanOrNull(timed('float16').map(timeShare)),
        selectionFloat32: meanOrNull(timed('float32').map(selectionShare)),
        selectionFloat16: meanOrNull(timed('float16').map(selectionShare)),
      };
    });
}

export const timeShare = ({total, exact}: TimeRow): number => total / exact;

export const selectionShare = ({total, exact, stages}: TimeRow): number => (total - (stages.attend ?? 0)) / exact;

export function summaryJson(rows: readonly SummaryRow[]): string {
  return `[\n${rows.map((row) => `  ${JSON.stringify(row)}`).join(',\n')}\n]\n`;
}

const meanOrNull = (values: readonly number[]): number | null => (values.length === 0 ? null : rounded(mean(values)));
