import type {PBSAttentionPlan} from '../../src/index';
import type {MaskValues} from './attention';
import {maskIndex} from './attention_oracle';

/** Plain arrays of a plan, and what the plan is for. */
export interface PlanValues {
  keyIndices: ArrayLike<number>;
  blockMask: ArrayLike<number>;
  shape: [batch: number, heads: number, queryLength: number, keyLength: number];
  blockSize: number;
  keyBlockSize: number;
  segmentSize: number;
  queryBlocks: number;
  keyBlocks: number;
}

export async function valuesOf(plan: PBSAttentionPlan): Promise<PlanValues> {
  const {blockSize, keyBlockSize, segmentSize, queryLength} = plan.sizes!;
  const [batch, heads, keyLength] = plan.keyIndices.shape;
  const [, , queryBlocks, keyBlocks] = plan.blockMask.shape;
  const [keyIndices, blockMask] = [await plan.keyIndices.data(), await plan.blockMask.data()];
  const shape: PlanValues['shape'] = [batch, heads, queryLength, keyLength];
  return {keyIndices, blockMask, shape, blockSize, keyBlockSize, segmentSize, queryBlocks, keyBlocks};
}

/** The definition of attention by a plan: which key each row may see, as a mask; together with the mask of the call, if it has one. */
export function planMask({keyIndices, blockMask, shape, ...sizes}: PlanValues, mask?: MaskValues): MaskValues {
  const {blockSize, keyBlockSize, queryBlocks, keyBlocks} = sizes;
  const [batch, heads, queryLength, keyLength] = shape;
  const values = new Float32Array(batch * heads * queryLength * keyLength);
  const given = (place: number[]) => (mask ? mask.values[maskIndex(mask, place)] : 1);
  const hidden = mask?.dtype === 'float32' ? -Infinity : 0;
  for (let head = 0; head < batch * heads; ++head) {
    for (let query = 0; query < queryLength; ++query) {
      for (let place = 0; place < keyLength; ++place) {
        const row = head * queryBlocks + Math.floor(query / blockSize);
        const key = keyIndices[head * keyLength + place];
        const isKept = blockMask[row * keyBlocks + Math.floor(place / keyBlockSize)];
        values[(head * queryLength + query) * keyLength + key] = isKept
          ? given([Math.floor(head / heads), head % heads, query, key])
          : hidden;
      }
    }
  }
  return {values, shape, dtype: mask?.dtype ?? 'bool'};
}

/** Key blocks that a row of a plan keeps. */
export const keptBlocks = ({blockMask, keyBlocks}: PlanValues, row: number): number[] =>
  Array.from({length: keyBlocks}, (_, i) => i).filter((i) => blockMask[row * keyBlocks + i]);
