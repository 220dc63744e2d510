import type {NamedTensorMap, Tensor1D, Tensor4D} from '@tensorflow/tfjs-core';
import {Tensor, tensor1d} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../attention/block_geometry.js';
import {check, describe} from './check_arguments.js';
import type {AttentionOptions, FlashAttentionOptions} from './options.js';
import type {PBSAttentionPlan} from './results.js';

/*
 * The inputs of the kernels that options bring. What is not given is no key of the result: tfjs's tape stumbles over an
 * input that is undefined.
 */

/** `keyLengths`, if given, as a tensor: for ops, whose scope frees it. */
export function keyLengthsInput(op: string, options: AttentionOptions | undefined, key: Tensor4D): NamedTensorMap {
  const keyLengths = options?.keyLengths;
  if (keyLengths === undefined) {
    return {};
  }
  const [batch, , keyLength] = key.shape;
  const takes = `${batch} integers from 0 to ${keyLength}, or an int32 tensor [${batch}]`;
  if (keyLengths instanceof Tensor) {
    checkTensorOf(op, 'keyLengths', keyLengths, ['int32'], [batch], takes);
    return {keyLengths};
  }
  check(Array.isArray(keyLengths), op, 'keyLengths', `got ${describe(keyLengths)}`, takes);
  const isLength = (x: number) => Number.isSafeInteger(x) && x >= 0 && x <= keyLength;
  const areLengths = keyLengths.length === batch && keyLengths.every(isLength);
  check(areLengths, op, 'keyLengths', `got [${keyLengths}]`, takes);
  return {keyLengths: tensor1d(keyLengths, 'int32') satisfies Tensor1D};
}

/** `mask`, if given. */
export function maskInput(
  op: string,
  options: FlashAttentionOptions | undefined,
  query: Tensor4D,
  key: Tensor4D,
): NamedTensorMap {
  const mask = options?.mask;
  if (mask === undefined) {
    return {};
  }
  const shape = [query.shape[0], query.shape[1], query.shape[2], key.shape[2]];
  const takes = `a bool or float32 tensor of rank 4 that broadcasts to [${shape}]`;
  check(mask instanceof Tensor, op, 'mask', `got ${describe(mask)}`, takes);
  const broadcast = mask.shape.map((size, axis) => (size === 1 ? 1 : shape[axis]));
  checkTensorOf(op, 'mask', mask, ['bool', 'float32'], broadcast.length === 4 ? broadcast : shape, takes);
  return {mask};
}

/** Throws unless the plan is one for these blocks; gives its tensors. */
export function planInputs(op: string, plan: PBSAttentionPlan, geometry: BlockGeometry): NamedTensorMap {
  const {batch, heads, keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const isPlan = plan?.keyIndices instanceof Tensor && plan.blockMask instanceof Tensor;
  check(isPlan, op, 'plan', `got ${describe(plan)}`, 'what pbsAttentionPlan or extendPBSAttentionPlan returned');
  const {keyIndices, blockMask} = plan;
  const checkPart = (name: string, x: Tensor, dtype: string, shape: number[]) => {
    const takes = `${name} as ${dtype} [${shape}]: a plan for this query and key, of blocks of ${blockSize} queries`;
    checkTensorOf(op, 'plan', x, [dtype], shape, `${takes} and ${keyBlockSize} keys`);
  };
  checkPart('keyIndices', keyIndices, 'int32', [batch, heads, keyLength]);
  checkPart('blockMask', blockMask, 'bool', [batch, heads, queryBlocks, keyBlocks]);
  return {keyIndices, blockMask};
}

function checkTensorOf(op: string, name: string, x: Tensor, dtypes: string[], shape: number[], takes: string): void {
  check(!x.isDisposed, op, name, 'got a disposed tensor', takes);
  const fits =
    dtypes.includes(x.dtype) && x.rank === shape.length && x.shape.every((size, axis) => size === shape[axis]);
  check(fits, op, name, `got ${x.dtype} [${x.shape}]`, takes);
}
