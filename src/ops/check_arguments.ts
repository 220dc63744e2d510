import type {Tensor4D} from '@tensorflow/tfjs-core';
import {engine, getBackend, getKernel, Tensor} from '@tensorflow/tfjs-core';
import type {FlashAttentionAttrs, PBSAttentionAttrs, RegisteredKernel} from '../kernels/attention_kernels.js';
import {version} from '../version.js';
import type {FlashAttentionOptions, PBSAttentionOptions} from './options.js';
import {defaultOptions} from './options.js';

/** Throws unless query, key and (where the op has one) value fit together. */
export function checkTensors(op: string, query: Tensor4D, key: Tensor4D, value?: Tensor4D): void {
  checkTensor(op, 'query', query, '[batch, heads, length, headDim]');
  const [batch, heads, length, headDim] = query.shape;
  for (const [name, x] of Object.entries(value === undefined ? {key} : {key, value})) {
    checkTensor(op, name, x, '[batch, keyValueHeads, length, headDim]');
    const got = `got ${name} [${x.shape}] with query [${query.shape}]`;
    check(x.shape[0] === batch, op, name, got, `the query's batch, ${batch}`);
    check(x.shape[2] === length, op, name, got, `the query's length, ${length}`);
    check(x.shape[3] === headDim, op, name, got, `the query's headDim, ${headDim}`);
    check(heads % x.shape[1] === 0, op, name, got, `a number of heads that divides the query's ${heads}`);
  }
  if (value !== undefined) {
    const got = `got value [${value.shape}] with key [${key.shape}]`;
    check(value.shape[1] === key.shape[1], op, 'value', got, `the key's number of heads, ${key.shape[1]}`);
  }
}

function checkTensor(op: string, name: string, x: unknown, shape: string): void {
  const got = x instanceof Tensor ? `got ${x.dtype} [${x.shape}]` : `got ${describe(x)}`;
  const takes = `a float32 tensor ${shape} with no dimension of 0`;
  check(x instanceof Tensor, op, name, got, takes);
  check(!x.isDisposed, op, name, 'got a disposed tensor', takes);
  check(x.dtype === 'float32' && x.rank === 4 && x.size > 0, op, name, got, takes);
}

/** Fills in the defaults of exact attention and throws on what it cannot take. */
export function flashAttentionAttrs(
  op: string,
  options: FlashAttentionOptions | undefined,
  headDim: number,
): FlashAttentionAttrs {
  const {causal, scale, precision} = {scale: 1 / Math.sqrt(headDim), ...withDefaults(op, options)};
  checkBoolean(op, 'causal', causal);
  check(Number.isFinite(scale), op, 'scale', `got ${describe(scale)}`, 'a finite number');
  const isPrecision = precision === 'float32' || precision === 'float16';
  check(isPrecision, op, 'precision', `got ${describe(precision)}`, "'float32' or 'float16'");
  return {causal, scale, precision};
}

/** Fills in the defaults of block-sparse attention and throws on what it cannot take. */
export function pbsAttentionAttrs(
  op: string,
  options: PBSAttentionOptions | undefined,
  headDim: number,
): PBSAttentionAttrs {
  const {threshold, permute, exactLastBlock, auto} = withDefaults(op, options);
  const inUnitInterval = typeof threshold === 'number' && threshold >= 0 && threshold <= 1;
  check(inUnitInterval, op, 'threshold', `got ${describe(threshold)}`, 'a number from 0 to 1');
  checkBoolean(op, 'permute', permute);
  checkBoolean(op, 'exactLastBlock', exactLastBlock);
  checkBoolean(op, 'auto', auto);
  return {
    ...flashAttentionAttrs(op, options, headDim),
    ...blockSizes(op, options),
    threshold,
    permute,
    exactLastBlock,
    auto,
  };
}

/** Block and segment size, checked. */
export function blockSizes(
  op: string,
  options: PBSAttentionOptions | undefined,
): {blockSize: number; segmentSize: number} {
  const {blockSize, segmentSize} = withDefaults(op, options);
  for (const [name, size] of Object.entries({blockSize, segmentSize})) {
    const isSize = Number.isSafeInteger(size) && size > 0 && size < 2 ** 31;
    check(isSize, op, name, `got ${describe(size)}`, 'a positive 32-bit integer');
  }
  const got = `got ${segmentSize} with blockSize ${blockSize}`;
  check(segmentSize % blockSize === 0, op, 'segmentSize', got, 'a multiple of blockSize');
  return {blockSize, segmentSize};
}

/** Throws unless the active backend has the kernel, of this version: another may ignore attributes that it does not know. */
export function checkBackend(op: string, kernelName: string): void {
  const active = getBackend();
  const kernel: RegisteredKernel | undefined = getKernel(kernelName, active);
  if (!kernel) {
    const able = Object.keys(engine().registryFactory).filter((name) => getKernel(kernelName, name));
    fail(op, 'backend', `got '${active}', which has no ${kernelName} kernel`, able.join(', ') || 'none loaded');
  }
  const {packageVersion = version} = kernel;
  const got = `got that of tfjs-pbs-attention ${packageVersion}, loaded first`;
  check(packageVersion === version, op, 'kernel', got, `that of ${version}: load one version`);
}

export function checkBoolean(op: string, name: string, value: unknown): asserts value is boolean {
  check(typeof value === 'boolean', op, name, `got ${describe(value)}`, 'true or false');
}

export function check(condition: boolean, op: string, argument: string, got: string, takes: string): asserts condition {
  if (!condition) {
    fail(op, argument, got, takes);
  }
}

function fail(op: string, argument: string, got: string, takes: string): never {
  throw new Error(`${op}: ${argument}: ${got}; takes ${takes}.`);
}

/** An option that is `undefined` counts as not given; one that does not exist is a mistake worth naming. */
function withDefaults<T extends PBSAttentionOptions>(op: string, options: T | undefined) {
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined);
  const known = [...Object.keys(defaultOptions), 'scale'];
  for (const [name] of given) {
    check(known.includes(name), op, 'options', `got '${name}'`, known.join(', '));
  }
  return {...defaultOptions, ...Object.fromEntries(given)} as typeof defaultOptions & {scale?: number};
}

function describe(value: unknown): string {
  if (typeof value === 'string') {
    return `'${value}'`;
  }
  return typeof value === 'object' && value !== null ? value.constructor.name : `${value}`;
}
