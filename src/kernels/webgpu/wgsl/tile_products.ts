import {unroll} from '../../unroll.js';
import type {Tile} from './tile.js';
import {columnOf, rowOf} from './tile.js';

/** How many steps of a loop of `count` are written out. */
const stepsOf = (count: number) => (count % 4 === 0 ? 4 : 1);

/**
 * Statements: adds to `sums`, `[rows][columns]`, the products of this invocation's rows of two tiles in workgroup memory, `width`
 * vec4 each: left · rightᵀ. As fma by component: a dot product would be added in a fifth step.
 */
export function addRowProducts(
  {rows, columns}: Tile,
  {left, right, sums, width}: {left: string; right: string; sums: string; width: number},
): string {
  const step = stepsOf(width);
  const addProduct = (sum: string, a: string, b: string) =>
    `${sum} = ${['x', 'y', 'z', 'w'].reduce((so, e) => `fma(${a}.${e}, ${b}.${e}, ${so})`, sum)};`;
  return `for (var s = 0; s < ${width / step}; s++) {
      let i = s * ${step};
      ${unroll(
        step,
        (u) => `{
      ${unroll(rows, (r) => `let a${r} = ${left}[(${rowOf(r)}) * tileStride + i + ${u}];`)}
      ${unroll(
        columns,
        (c) => `{
        let b = ${right}[(${columnOf(c)}) * tileStride + i + ${u}];
        ${unroll(rows, (r) => addProduct(`${sums}[${r}][${c}]`, `a${r}`, 'b'))}
      }`,
      )}
      }`,
      )}
    }`;
}

/**
 * Statements: adds to `sums`, `[rows][…]`, this invocation's vec4 of the rows of a tile in workgroup memory, weighted: weights ·
 * right. `weights` holds those of a row in the columns of an x together.
 *
 * @param width vec4 of a row, of which an invocation takes every threadsX-th; their sums start at `first`.
 * @param guarded whether rows may hold what is not finite: those of weight 0 are left out then, for zero times a NaN is a NaN.
 */
export function addWeightedRows(
  tile: Tile,
  {
    right,
    sums,
    width,
    first = 0,
    guarded = false,
  }: {right: string; sums: string; width: number; first?: number; guarded?: boolean},
): string {
  const {rows, columns, threadsX} = tile;
  const step = guarded ? 1 : Math.min(4, threadsX);
  const add = (sum: string, weight: string) => {
    const added = `fma(vec4<f32>(${weight}), b, ${sum})`;
    return `${sum} = ${guarded ? `select(${added}, ${sum}, ${weight} == 0.0)` : added};`;
  };
  return `for (var s = 0; s < ${threadsX / step}; s++) {
      let i = s * ${step};
      ${unroll(
        step,
        (u) => `{
      ${unroll(rows, (r) => `let w${r} = weights[(${rowOf(r)}) * weightStride + i + ${u}];`)}
      ${unroll(partsOfRow(tile, width), (o) =>
        unroll(
          columns,
          (c) => `${ifInRow(tile, width, o)}{
        let b = ${right}[(i + ${u} + ${c} * threadsX) * tileStride + ${columnOf(o)}];
        ${unroll(rows, (r) => add(`${sums}[${r}][${first + o}]`, `w${r}[${c}]`))}
      }`,
        ),
      )}
      }`,
      )}
    }`;
}

/** Words of a row of `width` that an invocation takes: every threadsX-th, from x on. */
export const partsOfRow = ({threadsX}: Tile, width: number): number => Math.ceil(width / threadsX);

/** The guard of the last of them, where a row is not shared evenly. */
export const ifInRow = ({threadsX}: Tile, width: number, o: number): string =>
  width < (o + 1) * threadsX ? `if (${columnOf(o)} < ${width}) ` : '';
