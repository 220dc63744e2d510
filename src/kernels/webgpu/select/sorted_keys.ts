import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {sampleStride} from '../../../attention/sampled_estimate.js';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {paddedHeadDim} from '../wgsl/matrix_units.js';
import {keyRow, readRow, rowInputs} from '../wgsl/rows.js';

/** Rows of a head: up to whole runs of 256 slots, so that no fragment of keys reaches past them. */
const paddedSlots = (keyLength: number) => Math.ceil(keyLength / 256) * 256;

/** What the sorted keys take in one buffer. A head of queries has its own: with grouped heads that is more than the keys take. */
export const sortedKeysBytes = ({batch, heads, keyLength, headDim}: BlockGeometry): number =>
  2 * batch * heads * paddedSlots(keyLength) * paddedHeadDim(headDim);

/**
 * The keys of each query head in sorted order as float16, two a word, in fragments of the matrix units, which read one as 512 bytes
 * side by side: int32 `[batch * heads, paddedSlots, paddedHeadDim / 2]`. Of each 64 slots first those of residue 0 by
 * `sampleStride`, then those of residue 1, …; of these 16 keys first values 0 to 15, key by key, then values 16 to 31, …. Zeros
 * where there is no key or no value.
 */
export class SortedKeysProgram extends AttentionProgram<{headDim: number}> {
  constructor({key, geometry}: WebGPUCall, keyIndices: TensorInfo) {
    const {batch, heads, keyLength, headDim} = geometry;
    super({
      name: 'SortedKeys',
      inputs: {...rowInputs({key}), keyIndices},
      outputShape: [batch * heads, paddedSlots(keyLength), paddedHeadDim(headDim) / 2],
      outputType: 'int32',
      outputComponents: 4,
      threads: 256,
      call: {geometry},
      variant: {headDim},
    });
  }

  protected shader({headDim}: {headDim: number}): string {
    const parts = paddedHeadDim(headDim) / 8;
    return `
// An invocation writes eight values of one key.
${keyRow}
${readRow('readKey', 'key', headDim, paddedHeadDim(headDim))}

fn main(index : i32) {
  let slots = uniforms.outShape.y;
  let head = index / (${parts} * slots);
  let ofHead = index % (${parts} * slots);
  // Halves of 16 values, keys of a fragment, fragments of 16 keys, residues, tiles.
  let key16 = (ofHead / 2) % 16;
  let group = ofHead / (16 * ${parts});
  let part = 2 * ((ofHead / 32) % ${parts / 2}) + ofHead % 2;
  let slot = 64 * (group / ${sampleStride}) + ${sampleStride} * key16 + group % ${sampleStride};
  if (index >= uniforms.invocations) {
    return;
  }
  var packed = vec4<i32>(0);
  if (slot < uniforms.keyLength) {
    let row = keyRow(head, keyIndices[head * uniforms.keyLength + slot]);
    let a = readKey(row, 2 * part);
    let b = readKey(row, 2 * part + 1);
    packed = bitcast<vec4<i32>>(
      vec4<u32>(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw)));
  }
  result[index] = packed;
}`;
  }
}
