import {dispose, getBackend, setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions} from '../../src/index';
import {pbsAttentionPlan} from '../../src/index';
import {blockGeometry, isExact} from '../../src/attention/block_geometry';
import {permute} from '../../src/kernels/cpu/permute/permute';
import {pbsAttentionAttrs} from '../../src/ops/check_arguments';
import type {Inputs} from './attention';
import {tensors} from './attention';
import {expectSameMasks} from './block_masks';
import {cpuCall} from './cpu_call';
import type {PlanValues} from './plan_values';
import {keptBlocks} from './plan_values';
import type {FormCase} from './random_forms';
import {flashOptions} from './random_forms';

/** No block is kept of which no row of its block of queries sees a key, but for those of the rows' own segments. */
export function expectInWindow(
  plan: PlanValues,
  {window, causal = true, queryOffset = 0}: FormCase['options'],
  name: string,
): void {
  if (window === undefined) return;
  const {shape, blockSize, keyBlockSize, queryBlocks} = plan;
  const [batch, heads, queryLength, keyLength] = shape;
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    const first = queryOffset + (row % queryBlocks) * blockSize;
    const last = Math.min(first + blockSize, queryOffset + queryLength) - 1;
    for (const block of keptBlocks(plan, row)) {
      const head = Math.floor(row / queryBlocks);
      const places = Array.from({length: keyBlockSize}, (_, i) => block * keyBlockSize + i).filter(
        (i) => i < keyLength,
      );
      // Segments are whole, so a key's own one can be told by its place.
      const segment = places.map((i) => Math.floor(i / plan.segmentSize));
      const isOwn = causal && segment.some((x) => (x + 1) * plan.segmentSize > first);
      const keys = places.map((i) => plan.keyIndices[head * keyLength + i]);
      const reaches = keys.some((key) => key > first - window && key < last + (causal ? 1 : window));
      expect(isOwn || reaches, `${name}: block ${block} of row ${row}`).to.equal(true);
    }
  }
}

/** Expects the plan that the CPU makes, but where rounding decides: of keys whose scores are as good as equal, and of blocks. */
export async function expectPlanOfCPU(
  inputs: Inputs,
  {options, blocks}: Pick<FormCase, 'options' | 'blocks'>,
  actual: PlanValues,
  name: string,
) {
  const backend = getBackend();
  await setBackend('cpu');
  const [q, k, v] = tensors(inputs);
  const given: PBSAttentionOptions = {...blocks, ...flashOptions(options)};
  const {keyIndices, blockMask} = pbsAttentionPlan(q, k, given);
  const [order, mask] = [Array.from(await keyIndices.data()), await blockMask.data()];
  const attrs = pbsAttentionAttrs('test', given, q, k);
  const geometry = blockGeometry(q, k, attrs);
  const {alibiSlopes, keyLengths, softCap, mask: ofCall} = options;
  const forms = {
    softCap,
    mask: ofCall && {...ofCall, values: Float32Array.from(ofCall.values)},
    keyLengths: keyLengths && Int32Array.from(keyLengths),
    alibiSlopes: alibiSlopes && Float32Array.from(alibiSlopes),
  };
  const actualOrder = Array.from(actual.keyIndices);
  if (isExact(geometry, attrs)) {
    expect(actualOrder, `${name}: key order`).to.deep.equal(order);
    expect(Array.from(actual.blockMask), name).to.deep.equal(Array.from(mask));
  } else if (String(actualOrder) === String(order)) {
    expectSameMasks(actual.blockMask, mask, inputs.query, inputs.key, geometry, attrs, forms);
  } else {
    const {keyScores} = permute(cpuCall(inputs, {geometry, ...attrs, ...forms}), attrs);
    const {keyLength, permutedLength, segmentSize} = geometry;
    actualOrder.forEach((key, i) => {
      const [head, place] = [Math.floor(i / keyLength), i % keyLength];
      const scoreOf = (index: number) => keyScores[head * permutedLength + index];
      if (place + 1 < permutedLength && (place + 1) % segmentSize !== 0) {
        expect(scoreOf(actualOrder[i + 1]) - scoreOf(key), `${name}: key order at ${i}`).to.be.below(1e-5);
      }
    });
  }
  dispose([q, k, v, keyIndices, blockMask, ...(given.mask ? [given.mask] : [])]);
  await setBackend(backend);
}
