import type {HeadDims} from '../runtime/device_limits.js';
import {headVectors} from '../wgsl/rows.js';
import type {GradientTile} from './gradient_tile.js';
import {isKept} from './gradient_tile.js';

/** Tensors whose rows pass through workgroup memory. */
export type Rows = 'query' | 'key' | 'value' | 'dy';

/** Adds to `sums`, `[rows][columns]`, the products of owned rows with walked rows. */
export interface ProductsStep {
  owned: Rows;
  walked: Rows;
  sums: string;
  /** What an invocation does with its sums then, in registers. */
  then: string;
}

/** Adds to `sums`, of `[rows]` and the vectors that `writeSums` writes, walked rows times `weights`, `[rows][columns]`. */
export interface WeightedStep {
  walked: Rows;
  sums: string;
  weights: string;
}

export type Step = ProductsStep | WeightedStep;

export const isWeighted = (step: Step): step is WeightedStep => 'weights' in step;

/** What a stage of the gradients knows of the walked rows of tile t, one round before it needs it. */
export interface Ahead {
  /** Whether each walked row has a vec4 of statistics besides its place. */
  statistics: boolean;
  /** Statements that set `aheadRow` (and `aheadStatistics`) to those of tile `t` for the invocation `local`. */
  read: (t: string) => string;
}

/** A chunk of owned or walked rows that goes to workgroup memory. */
export interface Load {
  of: 'owned' | 'walked';
  rows: Rows;
  chunk: number;
}

/** A step, or the part of it that a chunk of the rows allows. */
export interface Pass {
  step: Step;
  chunk: number;
  isFirst: boolean;
  isLast: boolean;
  loads: Load[];
}

export const dimOf = (rows: Rows, {headDim, valueDim}: HeadDims) =>
  rows === 'query' || rows === 'key' ? headDim : valueDim;
const vectorsOf = (rows: Rows, dims: HeadDims) => headVectors(dimOf(rows, dims));
export const chunksOf = ({chunk}: GradientTile, rows: Rows, dims: HeadDims) => Math.ceil(vectorsOf(rows, dims) / chunk);
/** vec4 of a row in a chunk: the last may have fewer. */
export const widthOf = (tile: GradientTile, rows: Rows, dims: HeadDims, chunk: number) =>
  Math.min(tile.chunk, vectorsOf(rows, dims) - chunk * tile.chunk);
/** What the steps of a round do by chunks. Chunks run backwards where the last one stands in workgroup memory already. */
export function makePasses(tile: GradientTile, dims: HeadDims, steps: Step[]): Pass[] {
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
