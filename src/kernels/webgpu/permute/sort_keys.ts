import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {unroll} from '../../unroll.js';
import {AttentionProgram, i32} from '../runtime/program.js';
import {localOf, workgroupIndex} from '../wgsl/rows.js';

/**
 * Shader text: `rank(first, count, own)`, the number of scores among `count` of them, from the score `first` on, that come
 * before the own-th of them in descending order, equal scores by index. All invocations of a workgroup call it together, for
 * the same values; `own` may lie past the last. `threads` is a multiple of 8.
 *
 * Values are compared by their bits: for floats that are not negative the order is the same, and it stays a total order when
 * there are NaNs, which are all one here, so that ranks are a permutation whatever the values, and the same on every device.
 */
function rankKeys(threads: number): string {
  return `
var<workgroup> rankedTile : array<u32, ${threads}>;

fn scoreBits(at : i32) -> u32 {
  return min(bitcast<u32>(keyScores[at]) & 0x7fffffffu, 0x7f800001u);
}

// The values pass through workgroup memory in tiles; past the last stand zeros, which come before nothing.
fn rank(first : i32, count : i32, own : i32) -> i32 {
  ${localOf(threads)}
  var value = 0u;
  if (own < count) {
    value = scoreBits(first + own);
  }
  var before = 0;
  for (var base = 0; base < count; base += ${threads}) {
    var loaded = 0u;
    if (base + local < count) {
      loaded = scoreBits(first + base + local);
    }
    rankedTile[local] = loaded;
    // Barrier: every invocation reads what all have loaded.
    workgroupBarrier();
    for (var i = 0; i < ${threads}; i += 8) {
      ${unroll(8, (k) => `let other${k} = rankedTile[i + ${k}];`, '\n      ')}
      ${unroll(8, (k) => `before += select(0, 1, other${k} > value || (other${k} == value && base + i + ${k} < own));`, '\n      ')}
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }
  return before;
}`;
}

/** Last part of stage 1: int32 `[batch, heads, keyLength]`, the keys of each complete segment by descending score. */
export class SortKeysProgram extends AttentionProgram<{threads: number}> {
  constructor(keyScores: TensorInfo, geometry: BlockGeometry) {
    const {batch, heads, keyLength, segmentSize} = geometry;
    const threads = Math.min(256, Math.ceil(segmentSize / 32) * 32);
    const chunks = Math.ceil(segmentSize / threads);
    super({
      name: 'SortKeys',
      inputs: {keyScores},
      outputShape: [batch, heads, keyLength],
      outputType: 'int32',
      threads,
      workgroups: batch * heads * Math.ceil(keyLength / segmentSize) * chunks,
      call: {geometry},
      uniforms: {chunks: i32(chunks)},
      variant: {threads},
    });
  }

  protected shader({threads}: {threads: number}): string {
    return `
// An invocation owns one key. Its place in the sorted segment is the number of keys that come before it, found by
// comparing it with all keys of the segment. Next to a sorting network this takes no power of two, two barriers a tile, and a
// segment of any size.
${workgroupIndex}
${rankKeys(threads)}

// Keys of the segment that are sorted: all or none.
var<workgroup> sortedKeys : i32;

fn main(index : i32) {
  ${localOf(threads)}
  let heads = uniforms.batch * uniforms.heads;
  let length = uniforms.keyLength;
  let permutedLength = uniforms.permutedLength;
  let segmentSize = uniforms.segmentSize;
  let segments = (length + segmentSize - 1) / segmentSize;
  let segment = workgroupIndex() / uniforms.chunks;
  let head = segment / segments;
  let first = (segment % segments) * segmentSize;
  let own = (workgroupIndex() % uniforms.chunks) * ${threads} + local;
  // Keys after the last complete segment keep their order.
  let complete = head < heads && first < permutedLength;
  let scores = head * permutedLength + first;
  if (local == 0) {
    sortedKeys = select(0, segmentSize, complete);
  }
  // The ranking holds barriers, so all invocations must agree on the count: hence the uniform load.
  let before = rank(scores, workgroupUniformLoad(&sortedKeys), own);
  if (head < heads && own < segmentSize && first + own < length) {
    result[head * length + first + select(own, before, complete)] = first + own;
  }
}`;
  }
}

/** The same for keys that keep their order: the identity. */
export class KeysInPlaceProgram extends AttentionProgram<object> {
  constructor({batch, heads, keyLength}: BlockGeometry) {
    super({
      name: 'KeysInPlace',
      inputs: {},
      outputShape: [batch, heads, keyLength],
      outputType: 'int32',
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation writes one key.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = index % uniforms.outShape.z;
  }
}`;
  }
}
