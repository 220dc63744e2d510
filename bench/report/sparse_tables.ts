import {CLOCK_TEXTS} from './clock_texts';
import type {BackendName} from '../options';
import {type SparseResult, type Stage, STAGES} from '../results';
import {median} from '../statistics';
import {short, table} from '../table';

const DATA = {
  captured: [
    '### Captured',
    'Query, key and value of `demo/public/model` reading `demo/public/books/dubliners.txt`: the median over layers, and the smallest and largest layer.',
  ],
  stacked: [
    '### Stacked',
    'What `demo/public/model` computes reading `demo/public/books/dubliners.txt`, the heads of its layers (`--layers`) in one call, as in a layer of a larger model.',
  ],
  synthetic: [
    '### Synthetic',
    'A seeded generator of sinks, verticals, slashes, neighbourhood and topics (`bench/synthetic_attention.ts`).',
  ],
};

/** Stages before attention: what sparse attention pays to know where to look. */
const OVERHEAD: readonly Stage[] = ['permute', 'score', 'select', 'other'];

export function sparseTables(results: SparseResult[], backend: BackendName): string[] {
  if (results.length === 0) return [];
  const {sparse, column} = CLOCK_TEXTS[backend];
  const sections = (['captured', 'stacked', 'synthetic'] as const).flatMap((data) => {
    const own = results.filter((result) => result.data === data);
    return own.length === 0 ? [] : [...DATA[data], summary(own, column), ...programs(own, column)];
  });
  return [sparse, ...sections];
}

function summary(results: SparseResult[], gpuColumn: string): string {
  const head = [
    ...[
      'heads',
      'tokens',
      'precision',
      'τ',
      'layers',
      'density',
      'exact',
      'PBS-Attn',
      'speed-up',
      `exact, ${gpuColumn}`,
    ],
    ...STAGES,
    ...['bound', 'to bound', 'overhead', 'of exact', 'output difference'],
  ];
  const rows = grouped(results, ({shape, length, precision, threshold}) =>
    [shape, length, precision, threshold].join(),
  ).map((group) => {
    const {data, shape, length, precision, threshold} = group[0];
    const layers = data === 'captured' ? group.map(({layer}) => layer).join(' ') : '';
    const over = (value: (result: SparseResult) => number | undefined, format: (value: number) => string) => {
      const values = group.map(value).filter((x) => x !== undefined);
      if (values.length === 0) return '';
      const middle = format(median(values));
      return values.length === 1 ? middle : `${middle} (${format(Math.min(...values))}–${format(Math.max(...values))})`;
    };
    const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
    const times = (ratio: number) => `${ratio.toFixed(2)}×`;
    return [
      ...[shape, length.toLocaleString('en'), precision, String(threshold), layers],
      over(
        ({density}) => density,
        (x) => x.toFixed(3),
      ),
      over(({exact}) => exact.median, short),
      over(({sparse}) => sparse.median, short),
      over(({exact, sparse}) => exact.median / sparse.median, times),
      over(({exactGpu}) => exactGpu, short),
      ...STAGES.map((stage) => over(({stages}) => stages?.[stage], short)),
      over(bound, short),
      over(toBound, times),
      over((result) => whole(result) && overhead(result)! / whole(result)!, percent),
      over((result) => result.exactGpu && overhead(result)! / result.exactGpu, percent),
      over(
        (result) => result.difference,
        (x) => x.toFixed(3),
      ),
    ];
  });
  return table(head, rows);
}

function bound({density, exactGpu}: SparseResult): number | undefined {
  return exactGpu === undefined ? undefined : density * exactGpu;
}

function overhead({stages}: SparseResult): number | undefined {
  return stages && OVERHEAD.reduce((sum, stage) => sum + (stages[stage] ?? 0), 0);
}

function whole({stages}: SparseResult): number | undefined {
  return stages && Object.values(stages).reduce((sum, ms) => sum + ms, 0);
}

function toBound(result: SparseResult): number | undefined {
  const least = bound(result);
  return least === undefined ? undefined : whole(result)! / (least + overhead(result)!);
}

/** Where the time of the longest case goes. */
function programs(results: SparseResult[], gpuColumn: string): string[] {
  const longest = Math.max(...results.map(({length}) => length));
  const rows = grouped(
    results
      .filter(({length}) => length === longest)
      .flatMap((result) => (result.programs ?? []).map((program) => ({...program, precision: result.precision}))),
    ({program, precision}) => `${program} ${precision}`,
  ).map((group) => [
    group[0].program,
    group[0].stage,
    group[0].precision,
    short(median(group.map(({gpu}) => gpu.median))),
  ]);
  if (rows.length === 0) return [];
  return [
    `Programs at ${longest.toLocaleString('en')} tokens:`,
    table(['program', 'stage', 'precision', gpuColumn], rows),
  ];
}

function grouped<T>(items: readonly T[], key: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  }
  return [...groups.values()];
}
