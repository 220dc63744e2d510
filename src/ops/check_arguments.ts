import type {Tensor4D} from '@tensorflow/tfjs-core';
import {getBackend, getKernel, Tensor} from '@tensorflow/tfjs-core';
import type {FlashAttentionAttrs, PBSAttentionAttrs, RegisteredKernel} from '../attention/attention_kernels.js';
import {registerComposed} from '../kernels/register.js';
import {version} from '../version.js';
import type {AttentionOptions, FlashAttentionOptions, PBSAttentionOptions, PBSAttentionSettings} from './options.js';
import {defaultOptions, givenOptions} from './options.js';
import type {PBSAttentionPlan} from './results.js';

/** Options that belong to the tensors of a call. */
const flashInputOptions = ['queryOffset', 'keyStarts', 'keyLengths', 'alibiSlopes', 'sinks', 'mask'] as const;
const pbsInputOptions = [...flashInputOptions, 'plan', 'onReport'] as const;

/** The attributes of exact attention, defaults filled in; throws on what it cannot take. */
export function flashAttentionAttrs(
  op: string,
  options: FlashAttentionOptions | undefined,
  query: Tensor4D,
  key: Tensor4D,
): FlashAttentionAttrs {
  const settings = formSettings(op, withDefaults(op, options, flashInputOptions), query.shape[3]);
  return {...settings, queryOffset: queryOffsetOf(op, options, settings.causal, query, key)};
}

/** The attributes of block-sparse attention, defaults filled in; throws on what it cannot take. */
export function pbsAttentionAttrs(
  op: string,
  options: PBSAttentionOptions | undefined,
  query: Tensor4D,
  key: Tensor4D,
  inputOptions: readonly string[] = pbsInputOptions,
): PBSAttentionAttrs {
  const plan = options?.plan;
  // A plan of other keys is refused as a whole, when its tensors are looked at.
  const isOfKeys = plan?.keyIndices?.shape?.[2] === key.shape[2];
  const sized = withPlanSizes(op, options, plan, isOfKeys);
  if (plan?.sizes && isOfKeys) {
    const {queryLength} = plan.sizes;
    const got = `got [${query.shape}] with a plan for ${queryLength} rows`;
    check(query.shape[2] === queryLength, op, 'query', got, `the ${queryLength} rows that the plan was made for`);
  }
  const settings = pbsAttentionSettings(op, sized, query.shape[3], inputOptions);
  return {...settings, queryOffset: queryOffsetOf(op, sized, settings.causal, query, key)};
}

/** How a plan that is given cuts queries and keys: by its `sizes`, which options must not contradict, or as options say. */
export function planSettings(
  op: string,
  options: PBSAttentionOptions | undefined,
  plan: PBSAttentionPlan | undefined,
  withOffset: boolean,
  inputOptions: readonly string[] = pbsInputOptions,
): BlockSizes & {causal: boolean; window?: number; queryOffset?: number} {
  const sized = withPlanSizes(op, options, plan, withOffset);
  // Those that change nothing are checked too; the scale's default alone is the head dim's.
  const {blockSize, keyBlockSize, segmentSize, causal, window} = pbsAttentionSettings(op, sized, 1, inputOptions);
  const {queryOffset} = sized ?? {};
  check(
    typeof queryOffset !== 'object',
    op,
    'queryOffset',
    `got ${describe(queryOffset)}`,
    'one number, for all entries',
  );
  return {blockSize, keyBlockSize, segmentSize, causal, window, queryOffset};
}

/** @param withOffset with the position of the plan's first row, too; without a causal mask and a window it says nothing. */
function withPlanSizes(
  op: string,
  options: PBSAttentionOptions | undefined,
  plan: PBSAttentionPlan | undefined,
  withOffset: boolean,
): PBSAttentionOptions | undefined {
  checkIsOptions(op, options);
  if (!plan?.sizes) {
    return options;
  }
  const {blockSize, keyBlockSize, segmentSize, causal, window, queryOffset} = plan.sizes;
  const hasOffset = withOffset && (causal || window !== undefined);
  const sizes = {blockSize, keyBlockSize, segmentSize, causal, window, ...(hasOffset && {queryOffset})};
  for (const [name, size] of Object.entries(sizes)) {
    const given = options?.[name as keyof typeof sizes];
    const planned = size ?? 'none';
    const got = `got ${describe(given)} with a plan of ${name === 'queryOffset' ? 'rows from ' : ''}${planned}`;
    check(given === undefined || given === size, op, name, got, `${planned}, also where it is not given`);
  }
  return {...options, ...sizes};
}

/** Position of the first query row, for the kernels: 0 where it says nothing. */
export function queryOffsetOf(
  op: string,
  options: AttentionOptions | undefined,
  causal: boolean,
  query: Tensor4D,
  key: Tensor4D,
): number {
  const [queryLength, keyLength] = [query.shape[2], key.shape[2]];
  const shapes = `got query [${query.shape}] with key [${key.shape}]`;
  check(!causal || queryLength <= keyLength, op, 'query', shapes, 'no more rows than keys, or causal: false');
  const {queryOffset} = options ?? {};
  // Without a causal mask rows need positions for a window and for slopes.
  const counts = causal || options?.window !== undefined || options?.alibiSlopes !== undefined;
  if (queryOffset === undefined) {
    return counts ? Math.max(0, keyLength - queryLength) : 0;
  }
  const isPosition = typeof queryOffset === 'number' && Number.isSafeInteger(queryOffset) && queryOffset >= 0;
  const got = `got ${describe(queryOffset)} for ${queryLength} queries and ${keyLength} keys`;
  const last = causal ? keyLength - queryLength : counts ? keyLength : Infinity;
  const takes = `an integer from 0 to ${causal || !counts ? 'keyLength - queryLength' : 'keyLength'}`;
  check(isPosition && queryOffset <= last, op, 'queryOffset', got, takes);
  return counts ? queryOffset : 0;
}

/**
 * The options of block-sparse attention that do not depend on the tensors, defaults filled in; throws on what it cannot
 * take, `inputOptions` aside.
 */
export function pbsAttentionSettings(
  op: string,
  options: PBSAttentionSettings | undefined,
  headDim: number,
  inputOptions: readonly string[] = [],
): Omit<Required<PBSAttentionSettings>, 'causalSafe' | keyof ScoreForms> & ScoreForms {
  const settings = withDefaults(op, options, inputOptions);
  const {threshold, estimate, permute, causalSafe, auto, expectedDensity} = settings;
  const inUnitInterval = typeof threshold === 'number' && threshold >= 0 && threshold <= 1;
  check(inUnitInterval, op, 'threshold', `got ${describe(threshold)}`, 'a number from 0 to 1');
  const isEstimate = estimate === 'sampled' || estimate === 'pooled';
  check(isEstimate, op, 'estimate', `got ${describe(estimate)}`, "'sampled' or 'pooled'");
  checkBoolean(op, 'permute', permute);
  checkBoolean(op, 'causalSafe', causalSafe);
  checkBoolean(op, 'auto', auto);
  const isShare = typeof expectedDensity === 'number' && expectedDensity >= 0 && expectedDensity <= 1;
  check(isShare, op, 'expectedDensity', `got ${describe(expectedDensity)}`, 'a number from 0 to 1');
  const form = formSettings(op, settings, headDim);
  return {
    ...form,
    ...blockSizes(op, settings),
    threshold,
    estimate,
    permute: permute && !causalSafe,
    auto,
    expectedDensity,
  };
}

/** Throws on options that something else decides: which keys a query sees, and what becomes of a score. */
export function refuseForm(op: string, options: PBSAttentionSettings, decides: string): void {
  for (const name of ['causal', 'scale', 'window', 'softCap'] as const) {
    check(options[name] === undefined, op, 'options', `got '${name}'`, `no ${name}: ${decides}`);
  }
}

/** Options with defaults, not checked yet. */
type Settings = typeof defaultOptions & Pick<AttentionOptions, 'scale' | 'queryOffset'> & ScoreForms;
/** Forms that are numbers, those that are given. */
type ScoreForms = Pick<AttentionOptions, 'window' | 'softCap'>;
type BlockSizes = Pick<Settings, 'blockSize' | 'keyBlockSize' | 'segmentSize'>;

function formSettings(
  op: string,
  settings: Settings,
  headDim: number,
): Required<Pick<Settings, 'causal' | 'scale' | 'precision'>> & ScoreForms {
  const {causal, scale = 1 / Math.sqrt(headDim), precision, window, softCap} = settings;
  checkBoolean(op, 'causal', causal);
  check(Number.isFinite(scale), op, 'scale', `got ${describe(scale)}`, 'a finite number');
  const isPrecision = precision === 'float32' || precision === 'float16';
  check(isPrecision, op, 'precision', `got ${describe(precision)}`, "'float32' or 'float16'");
  const isWindow = window === undefined || (Number.isSafeInteger(window) && window >= 1);
  check(isWindow, op, 'window', `got ${describe(window)}`, 'an integer from 1 on');
  const isCap = softCap === undefined || (softCap >= 1e-30 && softCap <= 1e30);
  check(isCap, op, 'softCap', `got ${describe(softCap)}`, 'a number from 1e-30 to 1e30');
  return {causal, scale, precision, ...givenOptions({window, softCap})};
}

function blockSizes(op: string, {blockSize, keyBlockSize, segmentSize}: Settings): BlockSizes {
  for (const [name, size] of Object.entries({blockSize, keyBlockSize, segmentSize})) {
    const isSize = Number.isSafeInteger(size) && size > 0 && size < 2 ** 31;
    check(isSize, op, name, `got ${describe(size)}`, 'a positive 32-bit integer');
  }
  const got = `got ${segmentSize} with keyBlockSize ${keyBlockSize}`;
  check(segmentSize % keyBlockSize === 0, op, 'segmentSize', got, 'a multiple of keyBlockSize');
  return {blockSize, keyBlockSize, segmentSize};
}

/**
 * Throws unless the active backend has the kernel, of this version: another may ignore attributes that it does not know. A backend without
 * kernels gets those that are composed of tfjs's ops.
 */
export function checkBackend(op: string, kernelName: string): RegisteredKernel {
  const active = getBackend();
  if (active && !getKernel(kernelName, active)) registerComposed(active);
  const kernel: RegisteredKernel | undefined = getKernel(kernelName, active);
  check(kernel !== undefined, op, 'backend', 'got none', 'one of tfjs, made active by setBackend');
  const {packageVersion = version} = kernel;
  const got = `got that of tfjs-pbs-attention ${packageVersion}, loaded first`;
  check(packageVersion === version, op, 'kernel', got, `that of ${version}: load one version`);
  return kernel;
}

/** Throws unless the active backend has kernels of its own, whose times say something. */
export function checkOwnKernels(op: string, kernelName: string): void {
  const {isComposed = false, backendName} = checkBackend(op, kernelName);
  check(!isComposed, op, 'backend', `got '${backendName}', which has no kernels of its own`, 'cpu, webgl, webgpu');
}

function checkBoolean(op: string, name: string, value: unknown): asserts value is boolean {
  check(typeof value === 'boolean', op, name, `got ${describe(value)}`, 'true or false');
}

export function check(condition: boolean, op: string, argument: string, got: string, takes: string): asserts condition {
  if (!condition) {
    fail(op, argument, got, takes);
  }
}

function fail(op: string, argument: string, got: string, takes: string): never {
  // What came may be a whole book.
  const shortened = got.length > longestGot ? `${got.slice(0, longestGot)}…` : got;
  throw new Error(`${op}: ${argument}: ${shortened}; takes ${takes}.`);
}

const longestGot = 200;

function checkIsOptions(op: string, options: unknown): void {
  const isObject = options === undefined || (typeof options === 'object' && options !== null);
  const areOptions = isObject && !Array.isArray(options) && !(options instanceof Tensor);
  const takes = 'an object of options, of which a mask is one';
  check(areOptions, op, 'options', `got ${describe(options)}`, takes);
}

/** An option that does not exist is a mistake worth naming. */
function withDefaults(
  op: string,
  options: PBSAttentionSettings | undefined,
  inputOptions: readonly string[],
): Settings {
  checkIsOptions(op, options);
  const given = givenOptions(options);
  const known = [...Object.keys(defaultOptions), 'scale', 'window', 'softCap', ...inputOptions];
  for (const name of Object.keys(given)) {
    check(known.includes(name), op, 'options', `got '${name}'`, known.join(', '));
  }
  const {blockSize = defaultOptions.blockSize} = given;
  const ofBlocks = typeof blockSize === 'number' ? blockSize : Infinity;
  const keyBlockSize = given.keyBlockSize ?? Math.min(defaultOptions.keyBlockSize, ofBlocks);
  return {...defaultOptions, ...given, keyBlockSize};
}

export function describe(value: unknown): string {
  if (typeof value === 'string') {
    return `'${value}'`;
  }
  return typeof value === 'object' && value !== null ? (value.constructor?.name ?? 'an object') : String(value);
}
