import {expect} from 'chai';
import type {PBSAttentionAttrs} from '../src/kernels/attention_kernels';
import type {BlockGeometry} from '../src/kernels/block_geometry';
import {permute} from '../src/kernels/cpu/permute';
import {probedScores} from '../src/kernels/cpu/probed_scores';
import {scoreBlocks} from '../src/kernels/cpu/score_blocks';

/**
 * Expects two block masks to be equal, but for the rows in which a sum of scores comes so close to the threshold that
 * rounding decides; returns those rows.
 */
export function expectSameMasks(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  {
    scale,
    causal,
    threshold,
    permute: sort,
    exactLastBlock,
    probeRows,
  }: Pick<PBSAttentionAttrs, 'scale' | 'causal' | 'threshold' | 'permute' | 'exactLastBlock' | 'probeRows'>,
  keyLengths?: Int32Array,
): Set<number> {
  const {keyBlocks: blocks} = geometry;
  const order = permute(query, key, geometry, scale, sort, causal, keyLengths);
  const scores =
    probeRows > 0
      ? probedScores(query, key, order, geometry, scale, causal, exactLastBlock, probeRows, keyLengths)
      : scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock, keyLengths);
  const close = new Set<number>();
  expect(actual).to.have.length(expected.length);
  for (let row = 0; row < expected.length / blocks; ++row) {
    const byScore = scores.slice(row * blocks, (row + 1) * blocks).sort((a, b) => b - a);
    // What is paid to the own segment is kept before any block is chosen.
    let sum = probeRows > 0 ? 1 - byScore.reduce((a, b) => a + b, 0) : 0;
    if (byScore.some((score) => score > 0 && Math.abs((sum += score) - threshold) < 1e-4)) {
      close.add(row);
    } else {
      const rowOf = (x: ArrayLike<number>) => Array.from({length: blocks}, (_, i) => x[row * blocks + i]);
      expect(rowOf(actual), `block mask, row ${row}`).to.deep.equal(rowOf(expected));
    }
  }
  return close;
}
