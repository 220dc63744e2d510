import {backendOf, latest} from './report';
import type {ExactResult, Method, Run} from './results';
import {median} from './statistics';

/** By tokens, in their order. */
type ByLength = Record<string, number>;

/** The figures that are compared from one version to the next. Shapes are 8 heads of 64 where nothing is said. */
export interface Summary {
  device: string;
  date: string;
  commands: string[];
  /** Milliseconds a call, median, causal. `sparse4Heads`: block-sparse attention of the demo model's layers, 4 heads, float32. */
  ms: Partial<Record<'exactFloat16' | 'exactFloat32' | 'exactFloat16NoMatrix' | 'sparse4Heads', ByLength>>;
  /** How many times as fast as ONNX Runtime. `exactFloat16Heads128`: 32 heads on 8 of 128. */
  byOrt: Partial<Record<'exactFloat16' | 'exactFloat32' | 'exactFloat16Heads128', ByLength>>;
}

/** Of runs on WebGPU; later ones count where two hold the same case. */
export function summaryOf(runs: readonly Run[]): Summary | undefined {
  if (backendOf(runs) !== 'webgpu') return undefined;
  const results = latest(runs);
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
  const last = runs[runs.length - 1];
  return {
    device: `${last.adapter}, ${last.host}`,
    date: last.date,
    commands: runs.map(({command}) => command),
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
  };
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
