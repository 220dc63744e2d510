import {headVectors} from './rows.js';

/*
 * Sums of the rows of a block, column by column: invocation (vector, lane) of a workgroup adds up one vec4 column over every
 * n-th row, and the lanes are added up in workgroup memory.
 */

/** Rows that are added up side by side: what is left of 128 invocations when each takes one vec4 column. */
export const columnLanes = (dim: number): number => Math.max(1, Math.floor(128 / headVectors(dim)));

/** Invocations of a workgroup. */
export const columnThreads = (dim: number): number => headVectors(dim) * columnLanes(dim);

/**
 * Shader text: `sumLanes(x)`, the sum of x over the lanes of a column. All invocations of a workgroup call it together, and
 * all get the sum of their column.
 */
export function columnSums(dim: number): string {
  return `
var<workgroup> laneSums : array<vec4<f32>, ${columnThreads(dim)}>;

fn sumLanes(x : vec4<f32>) -> vec4<f32> {
  laneSums[i32(localIndex)] = x;
  // Barrier: a sum reads what all lanes of its column wrote.
  workgroupBarrier();
  var sum = vec4<f32>(0.0);
  for (var lane = 0; lane < ${columnLanes(dim)}; lane++) {
    sum += laneSums[lane * ${headVectors(dim)} + i32(localIndex) % ${headVectors(dim)}];
  }
  // Barrier: the next sums overwrite these.
  workgroupBarrier();
  return sum;
}`;
}
