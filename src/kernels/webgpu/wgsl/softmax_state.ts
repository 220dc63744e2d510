import {unroll} from '../../unroll.js';
import {headVectors, localOf} from './rows.js';
import type {Tile} from './tile.js';

/**
 * State of an online softmax: what is known of a query row after some of its keys. As programs pass it on, it is float32,
 * `4 * stateVectors(valueDim)` values: first the sum of values, weighted by exp2(score − maximum) and filled up with zeros to
 * whole vec4; then a vec4 of the maximum of the scores, the sum of the weights, and two zeros. Scores are in units of log2.
 *
 * The state of a row that has seen nothing is the maximum `lowest` and zeros; the result of such a row is zeros.
 */
export const stateVectors = (valueDim: number): number => headVectors(valueDim) + 1;

/** Shader text: the scores that are no scores. */
export const noScores = `
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;`;

/**
 * Shader text, behind `noScores`: states of a row, of four of its values, and what two of them make together, or those of all lanes of a workgroup, whose
 * invocations stand side by side: `width` of each lane, `threads` in all.
 */
export const mergeStates = (width: number, threads: number): string => `
struct State {
  maximum : f32,
  sum : f32,
  values : vec4<f32>,
};
const emptyState = State(lowest, 0.0, vec4<f32>(0.0));

fn merge(a : State, b : State) -> State {
  let maximum = max(a.maximum, b.maximum);
  let x = weighted(a, maximum);
  let y = weighted(b, maximum);
  return State(maximum, x.sum + y.sum, x.values + y.values);
}

// A state brought to another maximum. One without weights need not have its values written: they may be what zero times makes a NaN.
fn weighted(x : State, maximum : f32) -> State {
  let rescale = exp2(x.maximum - maximum);
  return State(maximum, x.sum * rescale, select(x.values * rescale, vec4<f32>(0.0), x.sum == 0.0));
}

var<workgroup> laneStates : array<State, ${threads}>;

// All invocations call it together; those of the first lane get what all lanes have.
fn mergeLanes(own : State) -> State {
  ${localOf(threads)}
  var state = own;
  laneStates[local] = state;
  // Barrier: the first lane reads what all lanes wrote.
  workgroupBarrier();
  for (var i = local + ${width}; i < ${threads} && local < ${width}; i += ${width}) {
    state = merge(state, laneStates[i]);
  }
  return state;
}`;

/**
 * Expression: what a head's sink weighs beside weights relative to `maximum`, for vectors of maxima with their type. Bounded: what is beside
 * so heavy a sink is nothing.
 */
export const sinkWeight = (maximum: string, type = 'f32', head = 'head'): string =>
  `exp2(min(${type}(headForms[${head}].z) - ${maximum}, ${type}(126.0)))`;

/** Statements: the empty state of an invocation's rows, `rowMax` and `rowSum`, over its own columns. */
export const emptyRows = ({rows}: Tile): string => `var rowMax = vec${rows}<f32>(lowest);
    var rowSum = vec${rows}<f32>(0.0);`;

/** Statements: adds `scores`, `[rows][columns]`, to it. */
export const addScores = ({rows, columns}: Tile): string =>
  unroll(
    rows,
    (r) => `{
      var newMax = rowMax[${r}];
      ${unroll(columns, (c) => `newMax = max(newMax, scores[${r}][${c}]);`)}
      rowSum[${r}] = fma(rowSum[${r}], exp2(rowMax[${r}] - newMax), ${unroll(columns, (c) => `exp2(scores[${r}][${c}] - newMax)`, ' + ')});
      rowMax[${r}] = newMax;
    }`,
  );

/**
 * Statements: `total` and `sum`, what `count` states make together whose maxima and sums of weights are the expressions, of `i`,
 * `maximum` and `sum`.
 */
export const mergeParts = (count: string | number, maximum: string, sum: string): string => `var total = lowest;
      for (var i = 0; i < ${count}; i++) {
        total = max(total, ${maximum});
      }
      var sum = 0.0;
      for (var i = 0; i < ${count}; i++) {
        sum += ${sum} * exp2(${maximum} - total);
      }`;
