import {Random} from '../fuzz/random';
import type {Inputs} from './attention';
import type {OracleOptions} from './attention_oracle';
import {attentionOracle} from './attention_oracle';
import type {PlanValues} from './plan_values';

/** A plan that no choice of blocks makes: keys twice, out of their segments or none that exist; any blocks, or none of a row. */
export function wildPlan(plan: PlanValues, seed: number): PlanValues & {keyIndices: number[]; blockMask: number[]} {
  const random = new Random(seed);
  const keyLength = plan.shape[3];
  const wildKey = () => random.pick([-1, keyLength, 2 ** 31 - 1, -(2 ** 31), random.below(keyLength)]);
  const share = random.pick([0, 0.3, 0.8]);
  const kept = random.pick([0, 0.2, 0.7, 1]);
  return {
    ...plan,
    keyIndices: Array.from(plan.keyIndices, (key) => (random.chance(share) ? wildKey() : key)),
    blockMask: Array.from(plan.blockMask, () => Number(random.chance(kept))),
  };
}

/**
 * The definition of attention by any plan: each place of a kept block is a key of its own, the nearest that exists, which a row sees as
 * its index says.
 */
export function attentionByPlan(
  {query, key, value, queryShape, keyShape, valueShape}: Inputs,
  {
    causal = true,
    queryOffset,
    keyLengths,
    window = Infinity,
    alibiSlopes,
    scale,
    softCap,
    sinks,
  }: OracleOptions & {
    queryOffset: number;
  },
  {keyIndices, blockMask, shape, blockSize, keyBlockSize, queryBlocks, keyBlocks}: PlanValues,
): Float64Array {
  const [batch, heads, queryLength, keyLength] = shape;
  const indices = Array.from(keyIndices, (index) => Math.min(keyLength - 1, Math.max(0, index)));
  const group = heads / keyShape[1];
  // The keys and values of each head of the query, in the order of its plan.
  const inOrder = (x: Float32Array, dim: number) =>
    Float32Array.from({length: batch * heads * keyLength * dim}, (_, i) => {
      const place = Math.floor(i / dim);
      const keyHead = Math.floor(Math.floor(place / keyLength) / group);
      return x[(keyHead * keyLength + indices[place]) * dim + (i % dim)];
    });
  const bias = Float64Array.from({length: batch * heads * queryLength * keyLength}, (_, i) => {
    const place = i % keyLength;
    const row = Math.floor(i / keyLength);
    const head = Math.floor(row / queryLength);
    const block = head * queryBlocks + Math.floor((row % queryLength) / blockSize);
    const index = indices[head * keyLength + place];
    const isKept = blockMask[block * keyBlocks + Math.floor(place / keyBlockSize)];
    const behind = queryOffset + (row % queryLength) - index;
    const isNear = (!causal || behind >= 0) && Math.abs(behind) < window;
    const isSeen = isKept && isNear && index < (keyLengths?.[Math.floor(head / heads)] ?? Infinity);
    return isSeen ? -(alibiSlopes?.[head % heads] ?? 0) * Math.abs(behind) : -Infinity;
  });
  const inputs: Inputs = {
    ...{query, queryShape},
    key: inOrder(key, keyShape[3]),
    value: inOrder(value, valueShape[3]),
    keyShape: [batch, heads, keyLength, keyShape[3]],
    valueShape: [batch, heads, keyLength, valueShape[3]],
  };
  const options: OracleOptions = {
    ...{scale, softCap, sinks},
    causal: false,
    mask: {values: bias, shape, dtype: 'float32'},
  };
  return attentionOracle(inputs, options).output;
}
