import type {Tensor4D} from '@tensorflow/tfjs-core';
import {reshape, Tensor, tensor, util} from '@tensorflow/tfjs-core';
import {rowDim} from '../attention/attention_kernels.js';
import {check, describe} from './check_arguments.js';
import {checkTakesPacked} from './pack_float16.js';

/** Query, key and, where the op has them, values of a batch. */
export interface AttentionTensors {
  query: Tensor4D;
  key: Tensor4D;
  /** The key where the op has no values. */
  value: Tensor4D;
  /** Whether they came without a batch, and so should results go: `asGiven`. */
  isOneEntry: boolean;
}

/**
 * The tensors of an op, in its scope, which frees what is made of them: those of rank 3 are a batch of one, and nested arrays are what
 * tfjs's own ops make of them. Throws unless they fit together.
 */
export function attentionTensors(
  op: string,
  ...given: [query: unknown, key: unknown, value?: unknown]
): AttentionTensors {
  const names = ['query', 'key', 'value'];
  const came = given.map((x, i) => asTensor(op, names[i], x));
  const isOneEntry = came[0] instanceof Tensor && came[0].rank === 3;
  const tensors = came.map((x, i) => {
    const shape =
      i === 0 ? 'heads, queryLength, headDim' : `keyValueHeads, keyLength, ${names[i] === 'key' ? 'head' : 'value'}Dim`;
    checkTensor(
      op,
      names[i],
      x,
      isOneEntry ? `[${shape}], as the query is one of rank 3` : `[batch, ${shape}]`,
      isOneEntry ? 3 : 4,
    );
    return isOneEntry ? reshape(x, [1, ...x.shape] as [number, number, number, number]) : x;
  }) as Tensor4D[];
  const [query, key, value = key] = tensors;
  checkShapes(op, query, key, value);
  return {query, key, value, isOneEntry};
}

/** A result, without the batch where its inputs came without. */
export function asGiven<T extends Tensor>(result: T, {isOneEntry}: Pick<AttentionTensors, 'isOneEntry'>): T {
  return isOneEntry ? (reshape(result, result.shape.slice(1)) as T) : result;
}

/** What tfjs's ops take for a tensor, as one; anything else as it is, to be named by a check. */
function asTensor(op: string, name: string, x: unknown): unknown {
  if (!isArray(x)) return x;
  const made = tensor(x as number[]);
  check(hasShape(x, made.shape), op, name, 'got arrays of different lengths', 'nested arrays of equal lengths');
  return made;
}

const isArray = (x: unknown): x is ArrayLike<unknown> => Array.isArray(x) || util.isTypedArray(x as object);

/** tfjs looks at the first of the nested arrays alone. */
const hasShape = (x: unknown, [size, ...inner]: number[]): boolean =>
  size === undefined
    ? !isArray(x)
    : isArray(x) && x.length === size && (!Array.isArray(x) || x.every((y) => hasShape(y, inner)));

/** Throws unless query, key and value of rank 4 fit together. */
export function checkTensors(op: string, query: Tensor4D, key: Tensor4D, value: Tensor4D): void {
  checkTensor(op, 'query', query, '[batch, heads, queryLength, headDim]');
  checkTensor(op, 'key', key, '[batch, keyValueHeads, keyLength, headDim]');
  checkTensor(op, 'value', value, '[batch, keyValueHeads, keyLength, valueDim]');
  checkShapes(op, query, key, value);
}

function checkShapes(op: string, query: Tensor4D, key: Tensor4D, value: Tensor4D): void {
  const [batch, heads, , headDim] = query.shape;
  const [keyBatch, keyHeads, keyLength] = key.shape;
  const ofKey = `got key [${key.shape}] with query [${query.shape}]`;
  check(keyBatch === batch, op, 'key', ofKey, `the query's batch, ${batch}`);
  const packed = `a float32 tensor of the query's headDim, ${headDim}, or that packed, of ${headDim / 2}`;
  check(key.dtype !== 'int32' || rowDim(key) === headDim, op, 'key', `got int32 [${key.shape}]`, packed);
  check(rowDim(key) === headDim, op, 'key', ofKey, `the query's headDim, ${headDim}`);
  check(heads % keyHeads === 0, op, 'key', ofKey, `a number of heads that divides the query's ${heads}`);
  if (key.dtype === 'int32') checkTakesPacked(op, 'key');
  const ofValue = `got value [${value.shape}] with key [${key.shape}]`;
  const ofTypes = `got ${value.dtype} with a key of ${key.dtype}`;
  check(value.dtype === key.dtype, op, 'value', ofTypes, 'key and value packed as int32, or none');
  check(value.shape[0] === batch, op, 'value', ofValue, `the key's batch, ${batch}`);
  check(value.shape[1] === keyHeads, op, 'value', ofValue, `the key's number of heads, ${keyHeads}`);
  check(value.shape[2] === keyLength, op, 'value', ofValue, `the key's length, ${keyLength}`);
}

function checkTensor(op: string, name: string, x: unknown, shape: string, rank = 4): asserts x is Tensor {
  const got = x instanceof Tensor ? `got ${x.dtype} [${x.shape}]` : `got ${describe(x)}`;
  const isPackable = name !== 'query';
  const takes = `a float32 tensor ${shape} with no dimension of 0${isPackable ? ', or that packed' : ''}`;
  check(x instanceof Tensor, op, name, got, takes);
  check(!x.isDisposed, op, name, 'got a disposed tensor', takes);
  const isType = x.dtype === 'float32' || (isPackable && x.dtype === 'int32');
  check(isType && x.rank === rank && x.size > 0, op, name, got, takes);
}
