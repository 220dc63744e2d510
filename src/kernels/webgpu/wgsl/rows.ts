import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {ProgramInput} from '../runtime/program_spec.js';

/**
 * tfjs folds a long dispatch into two or three dimensions; this is the index in the line that was asked for. Where the line is cut
 * into launches, those of one may reach into the next, and compute the same there.
 */
export const workgroupIndex = `
fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}`;

/**
 * Statement: `local`, the index of an invocation in a workgroup of `threads`. The bound changes nothing. It shows the compiler that
 * indices into workgroup memory which are sums, products, quotients and remainders of `local`, constants and counters of loops by
 * one are in range; all others it clamps, at two instructions an access.
 */
export const localOf = (threads: number): string => `let local = i32(min(localIndex, ${threads - 1}u));`;

/**
 * The row of `key` and `value` (seen as `[rows, headDim]`) that query head `head` of `[batch * heads]` reads at a
 * position. Grouped heads read the same row; nothing is repeated.
 */
export const keyRow = `
fn keyRow(head : i32, position : i32) -> i32 {
  let heads = uniforms.heads;
  let keyHeads = uniforms.keyValueHeads;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyLength + position;
}`;

/** Number of vec4 that hold a row of `headDim` values. */
export function headVectors(headDim: number): number {
  return Math.ceil(headDim / 4);
}

/** Components in which rows of `headDim` values can be read and written: 4 if every row starts at a vec4. */
export function rowComponents(headDim: number): 1 | 4 {
  return headDim % 4 === 0 ? 4 : 1;
}

/** Tensors as inputs that `readRow` reads. */
export function rowInputs(tensors: Record<string, TensorInfo>): Record<string, ProgramInput> {
  const input = (tensor: TensorInfo) => ({tensor, components: rowComponents(tensor.shape[tensor.shape.length - 1])});
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, input(tensor)]));
}

/**
 * A function that reads four values of a row, from value `4 * vector` on; zeros stand where the row has ended, up to
 * `paddedDim` values.
 */
export function readRow(name: string, tensor: string, headDim: number, paddedDim = headDim): string {
  const read = `fn ${name}(row : i32, vector : i32) -> vec4<f32>`;
  const vectors = headVectors(headDim);
  if (rowComponents(headDim) === 4) {
    const value =
      headVectors(paddedDim) === vectors
        ? `${tensor}[row * ${vectors} + vector]`
        : `select(vec4<f32>(), ${tensor}[row * ${vectors} + min(vector, ${vectors - 1})], vector < ${vectors})`;
    return `${read} { return ${value}; }`;
  }
  const value = (i: number) =>
    `select(0.0, ${tensor}[row * ${headDim} + 4 * vector + ${i}], 4 * vector + ${i} < ${headDim})`;
  return `${read} { return vec4<f32>(${[0, 1, 2, 3].map(value).join(', ')}); }`;
}

/**
 * A function that writes four values of a row, from value `4 * vector` on, as far as the row goes.
 *
 * @param first expression: the value of `result` at which its rows start.
 */
export function writeRow(
  name: string,
  headDim: number,
  {components = rowComponents(headDim), first}: {components?: 1 | 4; first?: string} = {},
): string {
  const write = `fn ${name}(row : i32, vector : i32, x : vec4<f32>)`;
  if (components === 4) {
    return `${write} { result[${first ? `${first} / 4 + ` : ''}row * ${headVectors(headDim)} + vector] = x; }`;
  }
  return `${write} {
  for (var i = 0; i < min(4, ${headDim} - 4 * vector); i++) {
    result[${first ? `${first} + ` : ''}row * ${headDim} + 4 * vector + i] = x[i];
  }
}`;
}
