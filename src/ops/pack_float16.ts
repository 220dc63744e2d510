import type {Tensor} from '@tensorflow/tfjs-core';
import {engine, getBackend, getKernel, op, Tensor as TensorClass} from '@tensorflow/tfjs-core';
import {PackFloat16} from '../attention/attention_kernels.js';
import {check, describe} from './check_arguments.js';

/**
 * Keys or values for a cache of half the size: two float16 a word, the first in the low half, rounded to the nearest. `flashAttention`,
 * `pbsAttention` and the others take a packed key with a packed value in place of float32 ones; decoding on WebGPU reads them as they are.
 *
 * ```js
 * const output = flashAttention(query, packFloat16(key), packFloat16(value));
 * ```
 *
 * Finite numbers that float16 does not reach become the largest that it has, 65,504. There are no gradients.
 *
 * @param x float32 `[…, dim]`, `dim` even: one of 4, or better of 8, reads fastest.
 * @returns int32 `[…, dim / 2]`. tfjs's own ops on WebGPU pass int32 through float32, so such rows cannot be sliced or concatenated there: a cache that grows keeps
 *     its last rows in float32, and `mergeAttention` puts both parts together.
 * @throws Error if `x` is not of that form, or on a backend other than WebGPU and CPU.
 * @function
 */
export const packFloat16 = /* @__PURE__ */ op({packFloat16_});

function packFloat16_<T extends Tensor>(x: T): T {
  const isTensor = x instanceof TensorClass;
  const got = isTensor ? `got ${x.dtype} [${x.shape}]` : `got ${describe(x)}`;
  const takes = 'a float32 tensor whose last dimension is even and none 0';
  check(
    isTensor && x.dtype === 'float32' && x.size > 0 && x.shape[x.rank - 1] % 2 === 0,
    'packFloat16',
    'x',
    got,
    takes,
  );
  check(!x.isDisposed, 'packFloat16', 'x', 'got a disposed tensor', takes);
  checkTakesPacked('packFloat16', 'x');
  return engine().runKernel(PackFloat16, {x}) as unknown as T;
}

/** Throws on a backend that has no packed rows. */
export function checkTakesPacked(name: string, argument: string): void {
  const backend = getBackend();
  check(
    getKernel(PackFloat16, backend) !== undefined,
    name,
    argument,
    `got packed float16 on ${backend}`,
    'float32 there; packed rows on webgpu and cpu',
  );
}
