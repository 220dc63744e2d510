import {unroll} from '../../unroll.js';
import type {HeadDims} from '../runtime/device_limits.js';
import {notFinite} from '../wgsl/not_finite.js';
import {headVectors, readRow} from '../wgsl/rows.js';
import {columnOf, rowOf, tileConstants, tileThreads, weightStride} from '../wgsl/tile.js';
import {TileLoad} from '../wgsl/tile_load.js';
import {addRowProducts, addWeightedRows, ifInRow, partsOfRow} from '../wgsl/tile_products.js';
import type {Ahead, Load, Pass, ProductsStep, Rows, Step, WeightedStep} from './gradient_passes.js';
import {chunksOf, dimOf, isWeighted, makePasses, widthOf} from './gradient_passes.js';
import type {GradientTile} from './gradient_tile.js';
import {chunkStride, isKept, ownedCount, walkedCount} from './gradient_tile.js';

const capital = (name: string) => name[0].toUpperCase() + name.slice(1);

/** vec4 of a row that an invocation sums up. */
const sumVectors = (tile: GradientTile, dim: number): number => {
  const vectors = headVectors(dim);
  const whole = Math.floor(vectors / tile.chunk);
  return whole * partsOfRow(tile, tile.chunk) + partsOfRow(tile, vectors % tile.chunk);
};

/**
 * The shader text of a walk over tiles of rows, in rounds that take the same steps. A step needs its rows in workgroup
 * memory: what stands there already is not loaded again, and what the next step with other rows needs is read from global
 * memory into registers while this one computes.
 */
export class GradientWalk {
  private readonly passes: Pass[];
  private readonly keptRows: Rows[];
  private readonly owned: number;
  private readonly walked: number;

  constructor(
    private readonly tile: GradientTile,
    private readonly dims: HeadDims,
    private readonly steps: Step[],
    private readonly ahead: Ahead,
  ) {
    this.passes = makePasses(tile, dims, steps);
    const owns = steps.flatMap((step) => (isWeighted(step) ? [] : [step.owned]));
    this.keptRows = isKept(tile, dims) ? owns : [];
    this.owned = ownedCount(tile);
    this.walked = walkedCount(tile);
  }

  /** Constants, workgroup memory, and functions that read rows. */
  declarations(): string {
    const {tile, dims, owned, walked, steps, keptRows} = this;
    const stride = chunkStride(tile, dims);
    const ownedTiles = keptRows.length > 0 ? keptRows.map((rows) => `owned${capital(rows)}`) : ['ownedTile'];
    const tensors = [
      ...new Set(steps.flatMap((step) => (isWeighted(step) ? [step.walked] : [step.owned, step.walked]))),
    ];
    return `
${tileConstants(tile, steps.some((step) => step.walked === 'key') ? [owned, walked] : [walked, owned])}
const tileStride = ${stride};
const weightStride = ${weightStride(tile)};
${ownedTiles.map((name) => `var<workgroup> ${name} : array<vec4<f32>, ${owned * stride}>;`).join('\n')}
var<workgroup> walkedTile : array<vec4<f32>, ${walked * stride}>;${
      steps.some(isWeighted)
        ? `\nvar<workgroup> weights : array<vec${tile.columns}<f32>, ${owned * weightStride(tile)}>;${noteNotFinite}`
        : ''
    }
// Rows of the tensors; -1 for none. Of the walked ones there are those of this round and those of the next.
var<workgroup> ownedRows : array<i32, ${owned}>;
var<workgroup> walkedRows : array<i32, ${2 * walked}>;${
      this.ahead.statistics ? `\nvar<workgroup> walkedStatistics : array<vec4<f32>, ${2 * walked}>;` : ''
    }
${tensors.map((rows) => readRow(`read${capital(rows)}`, rows, dimOf(rows, dims))).join('\n')}`;
  }

  /** All rounds; `ownedRows` and `rounds` were set before, without a barrier since. */
  loop(rounds: string): string {
    const {ahead, walked, passes, keptRows, steps} = this;
    const products = steps.flatMap((step) => (isWeighted(step) ? [] : [step.sums]));
    const weightedSums = steps.filter(isWeighted);
    const carried = passes.map(({loads}) => this.placeOf(loads, loads.length));
    return `  ${weightedSums
      .map(
        ({walked: rows, sums}) =>
          `var ${sums} = array<array<vec4<f32>, ${sumVectors(this.tile, dimOf(rows, this.dims))}>, rows>();`,
      )
      .join('\n  ')}
  // What this invocation carries from global to workgroup memory.
  var fetched : array<vec4<f32>, ${Math.max(...carried)}>;
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
    // The initial values are needed: without them the last round's stay.
    ${products.map((sums) => `var ${sums} = array<array<f32, columns>, rows>();`).join('\n    ')}
${this.round()}
  }`;
  }

  /** Calls `write(row, vector, sum)` for the vectors of a row that this invocation has summed. */
  writeSums(rows: Rows, sums: string, write: (r: number, vector: string, sum: string) => string): string {
    const {tile, dims} = this;
    let at = 0;
    return unroll(chunksOf(tile, rows, dims), (chunk) => {
      const width = widthOf(tile, rows, dims, chunk);
      return unroll(partsOfRow(tile, width), (o) => {
        const sum = at++;
        const vector = `${chunk * tile.chunk} + ${columnOf(o)}`;
        return `${ifInRow(tile, width, o)}{
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
          text.push(...writes, '// Barrier: reads what others wrote.', 'workgroupBarrier();');
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
        `weights[(${rowOf(r)}) * weightStride + x] = vec${columns}<f32>(${unroll(columns, (c) => `${weights}[${r}][${c}]`, ', ')});`,
    );
  }

  private tileLoad({of, rows, chunk}: Load): TileLoad {
    const width = widthOf(this.tile, rows, this.dims, chunk);
    return new TileLoad(of === 'owned' ? this.owned : this.walked, width, tileThreads(this.tile));
  }

  /** Where in `fetched` one of several loads starts. */
  private placeOf(loads: Load[], k: number): number {
    return loads.slice(0, k).reduce((sum, load) => sum + this.tileLoad(load).rounds, 0);
  }

  private fetchAll(loads: Load[], half: string): string {
    return loads.map((load, k) => this.fetch(load, this.placeOf(loads, k), half)).join('\n    ');
  }

  /** Rows that do not exist read the first, which is not stored. */
  private fetch(load: Load, at: number, half: string): string {
    const tileLoad = this.tileLoad(load);
    const count = load.of === 'owned' ? this.owned : this.walked;
    return tileLoad.fetch((j, vector) => {
      const slot = tileLoad.isWhole(j) ? tileLoad.row(j) : `min(${tileLoad.row(j)}, ${count - 1})`;
      return this.read(load, `max(${rowIn(load, slot, half)}, 0)`, vector);
    }, at);
  }

  /** Stores them; zeros where a row does not exist. Walked rows are of the half `now`. */
  private store(load: Load, at: number): string {
    const tileLoad = this.tileLoad(load);
    const slot = (j: number) => rowIn(load, tileLoad.row(j), 'now');
    const name = load.of === 'walked' ? 'walkedTile' : this.ownedTile(load.rows);
    const isAddedUp = load.of === 'walked' && this.steps.some((step) => isWeighted(step) && step.walked === load.rows);
    return tileLoad.store(name, (j) => `select(vec4<f32>(0.0), fetched[${at + j}], ${slot(j)} >= 0)`, {
      also: (j) => (isAddedUp ? ` noteNotFinite(fetched[${at + j}]);` : ''),
    });
  }

  /** Loads owned rows for the whole walk. */
  private keepRows(rows: Rows): string {
    const load: Load = {of: 'owned', rows, chunk: 0};
    return this.tileLoad(load).loadTile(this.ownedTile(rows), {
      exists: (row) => `ownedRows[${row}] >= 0`,
      read: (row, vector) => this.read(load, `ownedRows[${row}]`, vector),
    });
  }

  private read({rows, chunk}: Load, row: string, vector: string): string {
    const first = chunk === 0 ? '' : `${chunk * this.tile.chunk} + `;
    return `read${capital(rows)}(${row}, ${first}${vector})`;
  }

  private ownedTile(rows: Rows): string {
    return this.keptRows.length > 0 ? `owned${capital(rows)}` : 'ownedTile';
  }

  private addProducts({owned, walked, sums}: ProductsStep, {chunk}: Pass): string {
    const {tile, dims} = this;
    const width = widthOf(tile, walked, dims, chunk);
    return addRowProducts(tile, {left: this.ownedTile(owned), right: 'walkedTile', sums, width});
  }

  private addWeighted({walked, sums}: WeightedStep, {chunk}: Pass): string {
    const {tile, dims} = this;
    const first = chunk * partsOfRow(tile, tile.chunk);
    const rows = {right: 'walkedTile', sums, width: widthOf(tile, walked, dims, chunk), first};
    return `if (atomicLoad(&anyNotFinite) == 0u) {
      ${addWeightedRows(tile, rows)}
    } else {
      ${addWeightedRows(tile, {...rows, guarded: true})}
    }`;
  }
}

/** Expression: the row of the tensor in a slot of a tile, walked ones of the half `now` or `next`. */
const rowIn = ({of}: Load, slot: string, half: string) =>
  of === 'owned' ? `ownedRows[${slot}]` : `walkedRows[${half} + ${slot}]`;

/** Shader text: notes that rows which weights are to be multiplied with are not all finite, once and for all later rounds. */
const noteNotFinite = `
var<workgroup> anyNotFinite : atomic<u32>;
${notFinite}
fn noteNotFinite(x : vec4<f32>) {
  if (any(notFinite(x))) {
    atomicStore(&anyNotFinite, 1u);
  }
}`;

/** A line of comment. */
function describe(step: Step, {chunk}: Pass, width: number): string {
  const vectors = chunk > 0 ? `, vectors from ${chunk * width} on` : '';
  return isWeighted(step)
    ? `${step.sums} += ${step.weights} · ${step.walked}${vectors}`
    : `${step.sums} += ${step.owned} · ${step.walked}ᵀ${vectors}`;
}
