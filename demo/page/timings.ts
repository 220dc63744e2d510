import {BACKEND_TITLES} from './format';
import type {Answer, AttentionName, Machine, RunRequest} from '../engine/protocol';

/** One run, as far as its times depend on it. */
export interface Timing {
  length: number;
  firstTokenMs: Record<AttentionName, number>;
  /** Under which settings, each said in words, by kind: those of exact attention are among those of PBS attention. */
  conditions: Record<AttentionName, Conditions>;
}

/** Kind of setting, such as `backend`, to its words. */
type Conditions = Record<string, string>;

/** The points of one line: one way of attending under the same settings. */
export interface Series {
  attention: AttentionName | 'composed';
  label: string;
  /** By length, each once. */
  points: Array<{length: number; ms: number}>;
}

export function timingOf(
  {prompt, options}: RunRequest,
  answers: Record<AttentionName, Answer>,
  machine: Machine,
  model: string,
): Timing {
  const shared: Conditions = {
    backend: `${BACKEND_TITLES[machine.backend]} (${machine.adapter})`,
    model,
    precision: options.precision ?? 'float32',
  };
  return {
    length: prompt.length,
    firstTokenMs: {exact: answers.exact.firstTokenMs, pbs: answers.pbs.firstTokenMs},
    conditions: {
      exact: shared,
      pbs: {
        threshold: `τ ${options.threshold}`,
        estimate: `${options.estimate} estimate`,
        blockSize: `blocks of ${options.blockSize} queries`,
        keyBlockSize: `blocks of ${options.keyBlockSize} keys`,
        segmentSize: `segments of ${options.segmentSize}`,
        permute: options.permute ? 'permuted' : 'not permuted',
        ...shared,
      },
    },
  };
}

/** Lines of a chart, in the order in which they were begun; the latest run counts where two are alike. */
export function seriesOf(timings: readonly Timing[]): Series[] {
  return (['exact', 'pbs'] as const).flatMap((attention) => {
    const conditionsOf = (timing: Timing) => timing.conditions[attention];
    const differing = differingKinds(timings.map(conditionsOf));
    const series = new Map<string, Series>();
    for (const timing of timings) {
      const conditions = conditionsOf(timing);
      const key = JSON.stringify(conditions);
      const label = labelOf(attention, conditions, differing);
      if (!series.has(key)) series.set(key, {attention, label, points: []});
      const {points} = series.get(key)!;
      const point = {length: timing.length, ms: timing.firstTokenMs[attention]};
      const same = points.findIndex(({length}) => length === timing.length);
      if (same >= 0) points[same] = point;
      else points.push(point);
      points.sort((a, b) => a.length - b.length);
    }
    return [...series.values()];
  });
}

/** The latest of each length and settings, by length: the rows of a table. */
export function latestRuns(timings: readonly Timing[]): Array<Timing & {label: string}> {
  const differing = differingKinds(timings.map(({conditions}) => conditions.pbs));
  const rows = new Map<string, Timing & {label: string}>();
  for (const timing of timings) {
    const {length, conditions} = timing;
    const label = labelOf('pbs', conditions.pbs, differing);
    rows.set(JSON.stringify([length, conditions.pbs]), {...timing, label});
  }
  return [...rows.values()].sort((a, b) => a.length - b.length);
}

function differingKinds(all: Conditions[]): Set<string> {
  const [first, ...others] = all;
  return new Set(Object.keys(first ?? {}).filter((kind) => others.some((other) => other[kind] !== first[kind])));
}

/** The threshold of PBS attention always belongs to the name; other settings where they tell lines apart. */
function labelOf(attention: AttentionName, conditions: Conditions, differing: Set<string>): string {
  const told = Object.keys(conditions).filter((kind) => kind === 'threshold' || differing.has(kind));
  return [attention === 'exact' ? 'Exact' : 'PBS', ...told.map((kind) => conditions[kind])].join(', ');
}
