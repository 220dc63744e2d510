import type {ExactResult, FormResult, Method, Run} from '../results';
import {median} from '../statistics';
import {ratioOf} from './forms_table';
import {backendOf} from './report';

/** By tokens, in their order. */
type ByLength = Record<string, number>;

/** The figures that are compared from one version to the next, by group and name. Shapes are 8 heads of 64 where nothing is said. */
export interface Summary {
  /** Of the latest run; that of each figure is in `measured`. */
  device: string;
  date: string;
  /** Milliseconds a call, median, causal. `sparse4Heads`: block-sparse attention of the demo model's layers, 4 heads, float32. */
  ms: Partial<Record<'exactFloat16' | 'exactFloat32' | 'exactFloat16NoMatrix' | 'sparse4Heads', ByLength>>;
  /** How many times as fast as ONNX Runtime. `exactFloat16Heads128`: 32 heads on 8 of 128. */
  byOrt: Partial<Record<'exactFloat16' | 'exactFloat32' | 'exactFloat16Heads128', ByLength>>;
  /** Time of a form of exact attention beside the same without it, as `sinksFloat16`. The window is an eighth of the tokens. */
  toPlain: Record<string, ByLength>;
  /** Of each figure, by its path, as `ms.exactFloat16`. */
  measured: Record<string, {device: string; date: string; command: string}>;
}

/**
 * The figures of runs on WebGPU; undefined for other backends.
 *
 * @param earlier figures that stay where no run has them. Later runs count where two have the same figure.
 */
export function summaryOf(runs: readonly Run[], earlier?: Summary): Summary | undefined {
  if (backendOf(runs) !== 'webgpu') return undefined;
  const byDate = [...runs].sort((a, b) => a.date.localeCompare(b.date));
  const latest = byDate.at(-1)!;
  const summary: Summary = {
    device: deviceOf(latest),
    date: latest.date,
    ms: {...earlier?.ms},
    byOrt: {...earlier?.byOrt},
    toPlain: {...earlier?.toPlain},
    measured: {...earlier?.measured},
  };
  for (const run of byDate) {
    const figures = figuresOf(run);
    for (const group of ['ms', 'byOrt', 'toPlain'] as const) {
      const to: Record<string, ByLength> = summary[group];
      for (const [name, figure] of Object.entries(figures[group])) {
        if (Object.keys(figure).length === 0) continue;
        to[name] = figure;
        summary.measured[`${group}.${name}`] = {
          device: deviceOf(run),
          date: run.date,
          command: run.command,
        };
      }
    }
  }
  return summary;
}

const deviceOf = ({adapter, host}: Run) => `${adapter}, ${host}`;

function figuresOf({results}: Run): Pick<Summary, 'ms' | 'byOrt' | 'toPlain'> {
  const exact = results.filter((result) => result.kind === 'exact');
  const timesOf = (method: Method, shape = '8x64') =>
    byLength(
      exact.filter((result) => result.method === method && result.shape === shape),
      callOf,
    );
  const faster = (ours: Method, theirs: Method, shape = '8x64') => {
    const own = timesOf(ours, shape);
    return mapValues(timesOf(theirs, shape), (ms, length) => ms / own[length]);
  };
  const ofFourHeads = results
    .filter((result) => result.kind === 'sparse')
    .filter(({data, shape, precision}) => data === 'captured' && /^4\D/.test(shape) && precision === 'float32');
  return {
    ms: {
      exactFloat16: timesOf('ours-f16'),
      exactFloat32: timesOf('ours-f32'),
      exactFloat16NoMatrix: timesOf('ours-f16-plain'),
      sparse4Heads: byLength(ofFourHeads, (result) => result.sparse.median),
    },
    byOrt: {
      exactFloat16: faster('ours-f16', 'ort-f16'),
      exactFloat32: faster('ours-f32', 'ort-f32'),
      exactFloat16Heads128: faster('ours-f16', 'ort-f16', '32/8x128'),
    },
    toPlain: toPlain(results.filter((result) => result.kind === 'form' && result.shape === '8x64') as FormResult[]),
  };
}

const PRECISIONS = {'ours-f32': 'Float32', 'ours-f16': 'Float16', 'ours-f16-plain': 'Float16NoMatrix'};

function toPlain(results: readonly FormResult[]): Record<string, ByLength> {
  const named = results.flatMap((result) => {
    const precision = PRECISIONS[result.method as keyof typeof PRECISIONS];
    return precision === undefined ? [] : [{...result, name: `${result.form}${precision}`}];
  });
  return Object.fromEntries(
    named.map(({name}) => [
      name,
      byLength(
        named.filter((result) => result.name === name),
        ratioOf,
      ),
    ]),
  );
}

const callOf = ({call}: ExactResult) => call?.median;

/** Medians where a length has several results, of layers say. */
function byLength<R extends {length: number}>(
  results: readonly R[],
  value: (result: R) => number | undefined,
): ByLength {
  const lengths = [...new Set(results.map(({length}) => length))].sort((a, b) => a - b);
  const entries = lengths.map((length): [string, number[]] => [
    String(length),
    results.filter((result) => result.length === length).flatMap((result) => value(result) ?? []),
  ]);
  return mapValues(Object.fromEntries(entries.filter(([, values]) => values.length > 0)), median);
}

/** Without what is no number; to three digits. */
function mapValues<V>(values: Record<string, V>, map: (value: V, key: string) => number): ByLength {
  const mapped = Object.entries(values).map(([key, value]): [string, number] => [key, map(value, key)]);
  return Object.fromEntries(
    mapped.filter(([, x]) => Number.isFinite(x)).map(([key, x]) => [key, Number(x.toPrecision(3))]),
  );
}
