import type {NamedTensorMap, Tensor1D, Tensor4D} from '@tensorflow/tfjs-core';
import {cast, logicalAnd, maximum, minimum, reshape, scalar, Tensor, tensor1d, tensor2d} from '@tensorflow/tfjs-core';
import {firstVisibleBlock, visibleBlocks, type BlockGeometry} from '../attention/block_geometry.js';
import type {AttentionTensors} from './attention_tensors.js';
import {check, describe} from './check_arguments.js';
import type {AttentionOptions, FlashAttentionOptions, PBSAttentionOptions} from './options.js';
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
  const lengths = listedIntegers(op, 'keyLengths', keyLengths, batch, keyLength, takes);
  return {keyLengths: tensor1d(lengths, 'int32') satisfies Tensor1D};
}

/** The integers from 0 to `last` of an option that lists one for each batch entry; throws on others. */
export function listedIntegers(
  op: string,
  name: string,
  given: unknown,
  batch: number,
  last: number,
  takes: string,
): number[] {
  const numbers = numbersOf(given);
  check(numbers !== undefined, op, name, `got ${describe(given)}`, takes);
  const isInRange = (x: number) => Number.isSafeInteger(x) && x >= 0 && x <= last;
  const areInRange = numbers.length === batch && numbers.every(isInRange);
  check(areInRange, op, name, `got [${listOf(numbers)}]`, takes);
  return numbers;
}

/** The options that are a number for each query head, those that are given, as tensors. */
export function headInputs(op: string, options: AttentionOptions | undefined, query: Tensor4D): NamedTensorMap {
  const heads = query.shape[1];
  const takes = `${heads} finite numbers, one for each query head, or a float32 tensor [${heads}]`;
  const inputs: NamedTensorMap = {};
  for (const name of ['alibiSlopes', 'sinks'] as const) {
    const given = options?.[name];
    if (given === undefined) continue;
    if (given instanceof Tensor) {
      checkTensorOf(op, name, given, ['float32'], [heads], takes);
      inputs[name] = given;
      continue;
    }
    const isList = Array.isArray(given) || given instanceof Float32Array;
    check(isList, op, name, `got ${describe(given)}`, takes);
    const numbers = Array.from(given as ArrayLike<number>);
    check(numbers.length === heads && numbers.every(Number.isFinite), op, name, `got [${listOf(numbers)}]`, takes);
    inputs[name] = tensor1d(numbers, 'float32');
  }
  return inputs;
}

/** Key lengths that are numbers, holes of an array among them, which are none. */
export function numbersOf(keyLengths: unknown): number[] | undefined {
  return Array.isArray(keyLengths) || keyLengths instanceof Int32Array
    ? Array.from(keyLengths as ArrayLike<number>)
    : undefined;
}

/** Few enough to be read. */
const listOf = (numbers: readonly unknown[]): string =>
  numbers.length > 8 ? `${numbers.slice(0, 8)}, and ${numbers.length - 8} more` : String(numbers);

/** The options with the key lengths that their plan was made with; throws on others. */
export function withPlanLengths(op: string, options: PBSAttentionOptions | undefined): PBSAttentionOptions | undefined {
  const planned = options?.plan?.sizes?.keyLengths;
  if (planned === undefined) return options;
  const given = numbersOf(options?.keyLengths);
  const got = `got [${given && listOf(given)}] with a plan of [${listOf(planned)}]`;
  const isSame = given === undefined || String(given) === String(planned);
  check(isSame, op, 'keyLengths', got, 'those that the plan was made with, also where they are not given');
  // A tensor is not read back.
  return options?.keyLengths === undefined ? {...options, keyLengths: planned} : options;
}

/** `mask`, if given: bool or float32, of rank 4. */
export function maskInput(
  op: string,
  options: FlashAttentionOptions | undefined,
  {query, key, isOneEntry}: AttentionTensors,
): NamedTensorMap {
  const mask: Tensor | undefined = options?.mask;
  if (mask === undefined) {
    return {};
  }
  const full = [query.shape[0], query.shape[1], query.shape[2], key.shape[2]];
  const shape = isOneEntry ? full.slice(1) : full;
  const takes = `a bool, int32 (0 and 1) or float32 (added) tensor of rank ${shape.length} that broadcasts to [${shape}]`;
  check(mask instanceof Tensor, op, 'mask', `got ${describe(mask)}`, takes);
  const broadcast = mask.shape.map((size, axis) => (size === 1 ? 1 : shape[axis]));
  checkTensorOf(op, 'mask', mask, ['bool', 'int32', 'float32'], mask.rank === shape.length ? broadcast : shape, takes);
  const sees = mask.dtype === 'int32' ? cast(mask, 'bool') : mask;
  return {mask: isOneEntry ? reshape(sees, [1, ...mask.shape]) : sees};
}

/** Values of key orders that this library made: what they hold is in range. */
const knownOrders = new WeakSet<object>();

export const knowPlan = ({dataId}: Tensor): void => void knownOrders.add(dataId);
export const isKnownPlan = ({keyIndices}: PBSAttentionPlan): boolean => knownOrders.has(keyIndices.dataId);

/** Throws unless the plan is one for these blocks. */
export function checkPlan(op: string, plan: PBSAttentionPlan, geometry: BlockGeometry): void {
  const {batch, heads, keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const isPlan = plan?.keyIndices instanceof Tensor && plan.blockMask instanceof Tensor;
  check(isPlan, op, 'plan', `got ${describe(plan)}`, 'what pbsAttentionPlan or extendPBSAttentionPlan returned');
  const checkPart = (name: string, x: Tensor, dtype: string, shape: number[]) => {
    const takes = `${name} as ${dtype} [${shape}]: a plan for this query and key, of blocks of ${blockSize} queries`;
    checkTensorOf(op, 'plan', x, [dtype], shape, `${takes} and ${keyBlockSize} keys`);
  };
  checkPart('keyIndices', plan.keyIndices, 'int32', [batch, heads, keyLength]);
  checkPart('blockMask', plan.blockMask, 'bool', [batch, heads, queryBlocks, keyBlocks]);
}

/**
 * The tensors of a plan, once it is checked. What a plan from elsewhere holds is not read back: its key indices are brought into the range of
 * the keys, and its blocks count where rows can see them alone, in segments up to their own.
 */
export function planInputs(
  op: string,
  plan: PBSAttentionPlan,
  geometry: BlockGeometry,
  causal: boolean,
): NamedTensorMap {
  checkPlan(op, plan, geometry);
  const {keyIndices, blockMask} = plan;
  if (isKnownPlan(plan)) return {keyIndices, blockMask};
  const {keyLength, queryBlocks, keyBlocks} = geometry;
  const [first, last] = [0, keyLength - 1].map((index) => scalar(index, 'int32'));
  const canBeSeen = Array.from({length: queryBlocks}, (_, row) =>
    Array.from(
      {length: keyBlocks},
      (__, block) => block >= firstVisibleBlock(geometry, row) && block < visibleBlocks(geometry, causal, row),
    ),
  );
  return {
    keyIndices: minimum(maximum(keyIndices, first), last),
    blockMask: logicalAnd(blockMask, tensor2d(canBeSeen, [queryBlocks, keyBlocks], 'bool')),
  };
}

function checkTensorOf(op: string, name: string, x: Tensor, dtypes: string[], shape: number[], takes: string): void {
  check(!x.isDisposed, op, name, 'got a disposed tensor', takes);
  const fits =
    dtypes.includes(x.dtype) && x.rank === shape.length && x.shape.every((size, axis) => size === shape[axis]);
  check(fits, op, name, `got ${x.dtype} [${x.shape}]`, takes);
}
