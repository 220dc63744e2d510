import {expect} from 'chai';
import type {PBSAttentionAttrs} from '../../src/attention/attention_kernels';
import type {BlockGeometry} from '../../src/attention/block_geometry';
import {permute} from '../../src/kernels/cpu/permute/permute';
import {sampledMass, sampledScores} from '../../src/kernels/cpu/select/sampled_mass';
import {scoreBlocks} from '../../src/kernels/cpu/select/score_blocks';
import type {CPUCall} from '../../src/kernels/cpu/cpu_call';
import {cpuCall} from './cpu_call';
import {leastScore} from '../../src/attention/sampled_estimate';

/**
 * Expects two block masks to be equal, but for the rows in which a score, or a sum of scores, comes so close to what selection
 * compares it with that rounding decides; returns those rows.
 */
export function expectSameMasks(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  attrs: Pick<PBSAttentionAttrs, 'scale' | 'causal' | 'threshold' | 'permute' | 'estimate'>,
  forms: Pick<CPUCall, 'keyLengths' | 'softCap' | 'alibiSlopes' | 'mask'> = {},
): Set<number> {
  const {queryBlocks, keyBlocks} = geometry;
  const {scale, causal, threshold, estimate} = attrs;
  const call = cpuCall({query, key, value: key}, {geometry, scale, causal, ...forms});
  const {keyIndices} = permute(call, attrs);
  const scores = estimate === 'sampled' ? sampledScores(sampledMass(call, keyIndices)) : scoreBlocks(call, keyIndices);
  const isClose = (x: number, y: number) => Math.abs(x - y) < 1e-4;
  const close = new Set<number>();
  expect(actual).to.have.length(expected.length);
  for (let row = 0; row < expected.length / keyBlocks; ++row) {
    const ofRow = scores.slice(row * keyBlocks, (row + 1) * keyBlocks);
    const least = leastScore(geometry, causal, threshold, row % queryBlocks);
    let sum = 0;
    const isLeftToRounding =
      estimate === 'sampled'
        ? ofRow.some((score) => isClose(score, least))
        : ofRow.sort((a, b) => b - a).some((score) => score > 0 && isClose((sum += score), threshold));
    if (isLeftToRounding) {
      close.add(row);
    } else {
      const rowOf = (x: ArrayLike<number>) => Array.from({length: keyBlocks}, (_, i) => x[row * keyBlocks + i]);
      expect(rowOf(actual), `block mask, row ${row}`).to.deep.equal(rowOf(expected));
    }
  }
  return close;
}
