import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {AttentionProgram, workgroupIndex} from './program.js';

interface SortVariant {
  threads: number;
  sort: boolean;
}

/** Last part of stage 1: int32 `[batch, heads, keyLength]`, the keys of each complete segment by descending score; or the identity. */
export class SortKeysProgram extends AttentionProgram<SortVariant> {
  constructor(keyScores: TensorInfo, geometry: BlockGeometry, sort: boolean) {
    const {batch, heads, keyLength, segmentSize} = geometry;
    const threads = Math.min(256, Math.ceil(segmentSize / 32) * 32);
    const chunks = Math.ceil(segmentSize / threads);
    super({
      inputs: {keyScores: {tensor: keyScores, components: 1}},
      outputShape: [batch, heads, keyLength],
      outputType: 'int32',
      threads,
      workgroups: batch * heads * Math.ceil(keyLength / segmentSize) * chunks,
      uniforms: {
        segmentSize: {type: 'i32', value: segmentSize},
        chunks: {type: 'i32', value: chunks},
      },
      variant: {threads, sort},
    });
  }

  protected shader({threads, sort}: SortVariant): string {
    return `
// An invocation owns one key. Its place in the sorted segment is the number of keys that come before it, found by
// comparing it with all keys of the segment, which pass through workgroup memory in tiles. Next to a sorting network
// this takes no power of two, two barriers a tile, and a segment of any size.
//
// Scores are compared by their bits: for floats that are not negative the order is the same, and it stays a total order
// when there are NaNs, so that the result is a permutation whatever the input.
${workgroupIndex}
var<workgroup> scoreTile : array<u32, ${threads}>;

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.x * uniforms.outShape.y;
  let length = uniforms.outShape.z;
  let permutedLength = uniforms.keyScoresShape.z;
  let segmentSize = uniforms.segmentSize;
  let segments = (length + segmentSize - 1) / segmentSize;
  let segment = workgroupIndex() / uniforms.chunks;
  let head = segment / segments;
  let first = (segment % segments) * segmentSize;
  let own = (workgroupIndex() % uniforms.chunks) * ${threads} + local;
  // The remainder after the last complete segment keeps its order.
  let complete = head < heads && first < permutedLength && ${sort};
  let scores = head * permutedLength + first;
  var score = 0u;
  if (complete && own < segmentSize) {
    score = bitcast<u32>(keyScores[scores + own]);
  }
  var before = 0;
  for (var base = 0; base < segmentSize; base += ${threads}) {
    if (complete && base + local < segmentSize) {
      scoreTile[local] = bitcast<u32>(keyScores[scores + base + local]);
    }
    // Barrier: every invocation reads the scores that all have loaded.
    workgroupBarrier();
    for (var i = 0; i < min(${threads}, segmentSize - base); i++) {
      let other = scoreTile[i];
      before += select(0, 1, other > score || (other == score && base + i < own));
    }
    // Barrier: the next round overwrites the scores.
    workgroupBarrier();
  }
  if (head < heads && own < segmentSize && first + own < length) {
    result[head * length + first + select(own, before, complete)] = first + own;
  }
}`;
  }
}
