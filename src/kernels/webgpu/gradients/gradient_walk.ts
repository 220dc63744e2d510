import {unroll} from '../../unroll.js';
import type {HeadDims} from '../runtime/device_limits.js';
import {headVectors, readRow} from '../wgsl/rows.js';
import {tileThreads, weightStride} from '../wgsl/tile.js';
import type {GradientTile} from './gradient_tile.js';
import {chunkStride, isKept, ownedCount, walkedCount} from './gradient_tile.js';

/** Tensors whose rows pass through workgroup memory. */
type Rows = 'query' | 'key' | 'value' | 'dy';

/** Adds to `sums`, `[rows][columns]`, the products of owned rows with walked rows. */
interface ProductsStep {
  owned: Rows;
  walked: Rows;
  sums: string;
  /** What an invocation does with its sums then, in registers. */
  then: string;
}

/** Adds to `sums`, of `[rows]` and the vectors that `writeSums` writes, walked rows times `weights`, `[rows][columns]`. */
interface WeightedStep {
  walked: Rows;
  sums: string;
  weights: string;
}

export type Step = ProductsStep | WeightedStep;

const isWeighted = (step: Step): step is WeightedStep => 'weights' in step;

/** What a stage of the gradients knows of the walked rows of tile t, one round before it needs it. */
export interface Ahead {
  /** Whether each walked row has a vec4 of statistics besides its place. */
  statistics: boolean;
  /** Statements that set `aheadRow` (and `aheadStatistics`) to those of tile `t` for the invocation `local`. */
  read: (t: string) => string;
}

/** A chunk of owned or walked rows that goes to workgroup memory. */
interface Load {
  of: 'owned' | 'walked';
  rows: Rows;
  chunk: number;
}

/** A step, or the part of it that a chunk of the rows allows. */
interface Pass {
  step: Step;
  chunk: number;
  isFirst: boolean;
  isLast: boolean;
  loads: Load[];
}

const capital = (name: string) => name[0].toUpperCase() + name.slice(1);
const dimOf = (rows: Rows, {headDim, valueDim}: HeadDims) => (rows === 'query' || rows === 'key' ? headDim : valueDim);
const vectorsOf = (rows: Rows, dims: HeadDims) => headVectors(dimOf(rows, dims));
const chunksOf = ({chunk}: GradientTile, rows: Rows, dims: HeadDims) => Math.ceil(vectorsOf(rows, dims) / chunk);
/** vec4 of a row in a chunk: the last may have fewer. */
const widthOf = (tile: GradientTile, rows: Rows, dims: HeadDims, chunk: number) =>
  Math.min(tile.chunk, vectorsOf(rows, dims) - chunk * tile.chunk);
/** vec4 of a chunk that an invocation sums up. */
const outputsOf = ({threadsX}: GradientTile, width: number) => Math.ceil(width / threadsX);

/** Shader text: vec4 of a row that an invocation sums up. */
export const sumVectors = (tile: GradientTile, dim: number): number => {
  const vectors = headVectors(dim);
  const whole = Math.floor(vectors / tile.chunk);
  return whole * outputsOf(tile, tile.chunk) + outputsOf(tile, vectors % tile.chunk);
};

/** Loads of an invocation that are on their way at a time where nothing else is to be done: more take too many registers. */
const loadsAtOnce = 8;

/**
 * The shader text of a walk over tiles of rows, in rounds that take the same steps. A step needs its rows in workgroup
 * memory: what stands there already is not loaded again, and what the next step with other rows needs is read from global
 * memory into registers while this one computes.
 */
export class GradientWalk {
  private readonly passes: Pass[];
  private readonly keptRows: Rows[];
  private readonly walkedStride: number;
  private readonly owned: number;
  private readonly walked: number;
  private readonly threads: number;

  constructor(
    private readonly tile: GradientTile,
    private readonly dims: HeadDims,
    private readonly owner: 'query' | 'key',
    private readonly steps: Step[],
    private readonly ahead: Ahead,
  ) {
    this.passes = makePasses(tile, dims, steps);
    const owns = steps.flatMap((step) => (isWeighted(step) ? [] : [step.owned]));
    this.keptRows = isKept(tile, dims) ? owns : [];
    this.walkedStride = chunkStride(tile, dims);
    this.owned = ownedCount(tile);
    this.walked = walkedCount(tile);
    this.threads = tileThreads(tile);
  }

  /** Constants, workgroup memory, and functions that read rows. */
  declarations(): string {
    const {tile, dims, owner, owned, walked, steps, keptRows} = this;
    const [tileQueries, tileKeys] = owner === 'query' ? [owned, walked] : [walked, owned];
    const ownedTiles = keptRows.length > 0 ? keptRows.map((rows) => `owned${capital(rows)}`) : ['ownedTile'];
    const tensors = [
      ...new Set(steps.flatMap((step) => (isWeighted(step) ? [step.walked] : [step.owned, step.walked]))),
    ];
    return `
const threadsX = ${tile.threadsX};
const threadsY = ${tile.threadsY};
const threads = ${this.threads};
const rows = ${tile.rows};
const columns = ${tile.columns};
const tileQueries = ${tileQueries};
const tileKeys = ${tileKeys};
const tileStride = ${this.walkedStride};
const weightStride = ${weightStride(tile)};
${ownedTiles.map((name) => `var<workgroup> ${name} : array<vec4<f32>, ${owned * this.walkedStride}>;`).join('\n')}
var<workgroup> walkedTile : array<vec4<f32>, ${walked * this.walkedStride}>;${
      steps.some(isWeighted)
        ? `\nvar<workgroup> weights : array<vec${tile.columns}<f32>, ${owned * weightStride(tile)}>;`
        : ''
    }
// Rows of the tensors; -1 for none. Of the walked ones there are those of this round and those of the next.
var<workgroup> ownedRows : array<i32, ${owned}>;
var<workgroup> walkedRows : array<i32, ${2 * walked}>;${
      this.ahead.statistics ? `\nvar<workgroup> walkedStatistics : array<vec4<f32>, ${2 * walked}>;` : ''
    }
// Rounds of the workgroup's walk: its barriers need a number that all invocations are known to share.
var<workgroup> roundCount : i32;
${tensors.map((rows) => readRow(`read${capital(rows)}`, rows, dimOf(rows, dims))).join('\n')}`;
  }

  /** All rounds; `ownedRows` and `rounds` were set before, without a barrier since. `prologue` starts a round. */
  loop(rounds: string, prologue: string): string {
    const {ahead, walked, passes, keptRows, steps} = this;
    const weightedSums = steps.filter(isWeighted);
    const carried = passes.map(({loads}) => loads.reduce((sum, load) => sum + this.wordsOf(load), 0));
    const atStart = keptRows.map((rows) => Math.min(loadsAtOnce, this.wordsOf({of: 'owned', rows, chunk: 0})));
    return `  ${weightedSums
      .map(
        ({walked: rows, sums}) =>
          `var ${sums} = array<array<vec4<f32>, ${sumVectors(this.tile, dimOf(rows, this.dims))}>, rows>();`,
      )
      .join('\n  ')}
  // What this invocation carries from global to workgroup memory.
  var fetched : array<vec4<f32>, ${Math.max(...carried, ...atStart)}>;
  var aheadRow = -1;${ahead.statistics ? '\n  var aheadStatistics = vec4<f32>(0.0);' : ''}
  if (local < ${walked}) {
    ${ahead.read('0')}
    ${this.storeAhead('local')}
    ${ahead.read('1')}
  }
  // Barrier: rows are read where others wrote that they stand.
  workgroupBarrier();
  ${keptRows.map((rows) => this.keepRows(rows)).join('\n  ')}
  ${this.fetchAll(passes[0].loads, '0')}

  for (var t = 0; t < ${rounds}; t++) {
    let now = (t & 1) * ${walked};
    let next = ${walked} - now;
    ${prologue}
${this.round()}
  }`;
  }

  /** Calls `write(row, vector, sum)` for the vectors of a row that this invocation has summed. */
  writeSums(rows: Rows, sums: string, write: (r: number, vector: string, sum: string) => string): string {
    const {tile, dims} = this;
    let at = 0;
    return unroll(chunksOf(tile, rows, dims), (chunk) => {
      const width = widthOf(tile, rows, dims, chunk);
      return unroll(outputsOf(tile, width), (o) => {
        const sum = at++;
        const vector = `${chunk * tile.chunk + o * tile.threadsX} + x`;
        return `${this.ifInChunk(width, o)}{
    ${unroll(tile.rows, (r) => write(r, vector, `${sums}[${r}][${sum}]`))}
  }`;
      });
    });
  }

  private round(): string {
    const {ahead, passes, walked, tile} = this;
    let readWeights = false;
    return passes
      .map((pass, i) => {
        const {step, loads, isFirst, isLast} = pass;
        const writesWeights = isWeighted(step) && isFirst;
        const writes = [
          ...(i === 0 ? [`if (local < ${walked}) { ${this.storeAhead(`next + local`)} }`] : []),
          ...loads.map((load, k) => this.store(load, this.placeOf(loads, k))),
          ...(writesWeights ? [this.storeWeights(step.weights)] : []),
        ];
        const nextLoads = [...passes.slice(i + 1), passes[0]].find((later) => later.loads.length > 0)?.loads ?? [];
        const isOfNextRound = passes.slice(i + 1).every((later) => later.loads.length === 0);
        const text = [`// ${describe(step, pass, tile.chunk)}`];
        if (writes.length > 0) {
          text.push(
            ...writes,
            `// Barrier: reads ${readByOthers(loads, writesWeights)} that others wrote.`,
            'workgroupBarrier();',
          );
          readWeights = false;
        }
        if (i === 0) {
          text.push(`if (local < ${walked}) { ${ahead.read('t + 2')} }`);
        }
        if (loads.length > 0) {
          text.push(this.fetchAll(nextLoads, isOfNextRound ? 'next' : 'now'));
        }
        text.push(isWeighted(step) ? this.addWeighted(step, pass) : this.addProducts(step, pass));
        readWeights ||= isWeighted(step);
        if (isLast && !isWeighted(step)) {
          text.push(step.then);
        }
        const following = passes[(i + 1) % passes.length];
        const overwrites =
          following.loads.length > 0 || (isWeighted(following.step) && following.isFirst && readWeights);
        if (overwrites) {
          text.push('// Barrier: the next step overwrites what others may still read.', 'workgroupBarrier();');
          readWeights = false;
        }
        return `    ${text.filter((line) => line !== '').join('\n    ')}`;
      })
      .join('\n\n');
  }

  private storeAhead(at: string): string {
    return `walkedRows[${at}] = aheadRow;${this.ahead.statistics ? ` walkedStatistics[${at}] = aheadStatistics;` : ''}`;
  }

  private storeWeights(weights: string): string {
    const {rows, columns} = this.tile;
    return unroll(
      rows,
      (r) =>
        `weights[(y + ${r} * threadsY) * weightStride + x] = vec${columns}<f32>(${unroll(columns, (c) => `${weights}[${r}][${c}]`, ', ')});`,
    );
  }

  private countOf({of}: Load): number {
    return of === 'owned' ? this.owned : this.walked;
  }

  /** vec4 of a load that an invocation carries, and where in `fetched` they start among several loads. */
  private wordsOf(load: Load): number {
    return Math.ceil((this.countOf(load) * widthOf(this.tile, load.rows, this.dims, load.chunk)) / this.threads);
  }
  private placeOf(loads: Load[], k: number): number {
    return loads.slice(0, k).reduce((sum, load) => sum + this.wordsOf(load), 0);
  }

  private fetchAll(loads: Load[], half: string): string {
    return loads.map((load, k) => this.fetch(load, this.placeOf(loads, k), half)).join('\n    ');
  }

  /** Issues loads `[from, to)` of those of an invocation. Rows that do not exist read the first, which is not stored. */
  private fetch(load: Load, place: number, half: string, from = 0, to = this.wordsOf(load)): string {
    const {tile, dims, threads} = this;
    const width = widthOf(tile, load.rows, dims, load.chunk);
    const count = this.countOf(load);
    return unroll(to - from, (i) => {
      const word = `(local + ${(from + i) * threads})`;
      const isWhole = count * width >= (from + i + 1) * threads;
      const slot = isWhole ? `${word} / ${width}` : `min(${word} / ${width}, ${count - 1})`;
      const row = load.of === 'owned' ? `ownedRows[${slot}]` : `walkedRows[${half} + ${slot}]`;
      const first = load.chunk === 0 ? '' : `${load.chunk * tile.chunk} + `;
      return `fetched[${place + i}] = read${capital(load.rows)}(max(${row}, 0), ${first}${word} % ${width});`;
    });
  }

  /** Stores them; zeros where a row does not exist. Walked rows are of the half `now`. */
  private store(load: Load, place: number, from = 0, to = this.wordsOf(load)): string {
    const {tile, dims, threads} = this;
    const width = widthOf(tile, load.rows, dims, load.chunk);
    const count = this.countOf(load);
    const name = load.of === 'walked' ? 'walkedTile' : this.ownedTile(load.rows);
    return unroll(to - from, (i) => {
      const word = `(local + ${(from + i) * threads})`;
      const row = load.of === 'owned' ? `ownedRows[${word} / ${width}]` : `walkedRows[now + ${word} / ${width}]`;
      const isWhole = count * width >= (from + i + 1) * threads;
      const value = `select(vec4<f32>(0.0), fetched[${place + i}], ${row} >= 0)`;
      return `${isWhole ? '' : `if (${word} < ${count * width}) `}{ ${name}[${word} / ${width} * tileStride + ${word} % ${width}] = ${value}; }`;
    });
  }

  private ownedTile(rows: Rows): string {
    return this.keptRows.length > 0 ? `owned${capital(rows)}` : 'ownedTile';
  }

  /** Loads owned rows for the whole walk, several loads before the first of their stores. */
  private keepRows(rows: Rows): string {
    const load: Load = {of: 'owned', rows, chunk: 0};
    const words = this.wordsOf(load);
    return unroll(Math.ceil(words / loadsAtOnce), (group) => {
      const [from, to] = [group * loadsAtOnce, Math.min(words, (group + 1) * loadsAtOnce)];
      return `${this.fetch(load, 0, '0', from, to)}
    ${this.store(load, 0, from, to)}`;
    });
  }

  /** As fma by component: a dot product would be added in a fifth step. */
  private addProducts({owned, walked, sums}: ProductsStep, {chunk}: Pass): string {
    const {tile, dims} = this;
    const width = widthOf(tile, walked, dims, chunk);
    const step = width % 4 === 0 ? 4 : 1;
    const components = ['x', 'y', 'z', 'w'];
    return `for (var i = 0; i < ${width}; i += ${step}) {
      ${unroll(
        step,
        (u) => `{
      ${unroll(tile.rows, (r) => `let a${r} = ${this.ownedTile(owned)}[(y + ${r} * threadsY) * tileStride + i + ${u}];`)}
      ${unroll(
        tile.columns,
        (c) => `{
        let b = walkedTile[(x + ${c} * threadsX) * tileStride + i + ${u}];
        ${unroll(
          tile.rows,
          (r) =>
            `${sums}[${r}][${c}] = ${components.reduce((sum, e) => `fma(a${r}.${e}, b.${e}, ${sum})`, `${sums}[${r}][${c}]`)};`,
        )}
      }`,
      )}
      }`,
      )}
    }`;
  }

  private addWeighted({walked, sums}: WeightedStep, {chunk}: Pass): string {
    const {tile, dims} = this;
    const width = widthOf(tile, walked, dims, chunk);
    const first = chunk * outputsOf(tile, tile.chunk);
    const step = Math.min(4, tile.threadsX);
    return `for (var i = 0; i < threadsX; i += ${step}) {
      ${unroll(
        step,
        (u) => `{
      ${unroll(tile.rows, (r) => `let w${r} = weights[(y + ${r} * threadsY) * weightStride + i + ${u}];`)}
      ${unroll(outputsOf(tile, width), (o) =>
        unroll(
          tile.columns,
          (c) => `${this.ifInChunk(width, o)}{
        let b = walkedTile[(i + ${u} + ${c} * threadsX) * tileStride + x + ${o} * threadsX];
        ${unroll(tile.rows, (r) => `${sums}[${r}][${first + o}] = fma(vec4<f32>(w${r}[${c}]), b, ${sums}[${r}][${first + o}]);`)}
      }`,
        ),
      )}
      }`,
      )}
    }`;
  }

  private ifInChunk(width: number, o: number): string {
    const {threadsX} = this.tile;
    return width < (o + 1) * threadsX ? `if (x + ${o} * threadsX < ${width}) ` : '';
  }
}

/** What the steps of a round do by chunks. Chunks run backwards where the last one stands in workgroup memory already. */
function makePasses(tile: GradientTile, dims: HeadDims, steps: Step[]): Pass[] {
  let walkedThere = '';
  let ownedThere = isKept(tile, dims) ? 'all' : '';
  return steps.flatMap((step) => {
    const count = chunksOf(tile, step.walked, dims);
    const isBackwards = walkedThere === `${step.walked} ${count - 1}`;
    return Array.from({length: count}, (_, i): Pass => {
      const chunk = isBackwards ? count - 1 - i : i;
      const loads: Load[] = [];
      if (walkedThere !== `${step.walked} ${chunk}`) {
        loads.push({of: 'walked', rows: step.walked, chunk});
        walkedThere = `${step.walked} ${chunk}`;
      }
      if (!isWeighted(step) && ownedThere !== 'all' && ownedThere !== `${step.owned} ${chunk}`) {
        loads.push({of: 'owned', rows: step.owned, chunk});
        ownedThere = `${step.owned} ${chunk}`;
      }
      return {step, chunk, isFirst: i === 0, isLast: i === count - 1, loads};
    });
  });
}

const readByOthers = (loads: Load[], writesWeights: boolean) =>
  [...(loads.length > 0 ? ['rows'] : []), ...(writesWeights ? ['weights'] : [])].join(' and ');

/** A line of comment. */
function describe(step: Step, {chunk}: Pass, width: number): string {
  const vectors = chunk > 0 ? `, vectors from ${chunk * width} on` : '';
  return isWeighted(step)
    ? `${step.sums} += ${step.weights} · ${step.walked}${vectors}`
    : `${step.sums} += ${step.owned} · ${step.walked}ᵀ${vectors}`;
}
