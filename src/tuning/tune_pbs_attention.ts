import type {PBSAttentionAttrs} from '../attention/attention_kernels.js';
import {PBSAttentionPlan as PBSAttentionPlanKernel} from '../attention/attention_kernels.js';
import {backendCosts} from '../kernels/backend_costs.js';
import {blockGeometry, isExact} from '../attention/block_geometry.js';
import {countBlocks, exactTime, leastGain, timeOfBlocks} from '../attention/cost_model.js';
import {check, checkBackend, checkTensors, describe, pbsAttentionAttrs} from '../ops/check_arguments.js';
import type {PBSAttentionOptions} from '../ops/options.js';
import {givenOptions} from '../ops/options.js';
import type {AttentionSample} from './attention_samples.js';
import type {AttentionMeasures, SampleMeasures} from './sample_measurer.js';
import {SampleMeasurer} from './sample_measurer.js';

const op = 'tunePBSAttention';

/** What {@link tunePBSAttention} has to reach; one of the two. */
export type TuningTarget =
  | {
      /** Largest relative L1 error of a layer's output, Σ|sparse − exact| / Σ|exact|: above 0. */
      maxRelativeL1: number;
    }
  | {
      /** Least share of the true attention that the kept blocks hold, mean over query rows and heads: from 0 to 1. */
      attentionMass: number;
    };

/** What {@link tunePBSAttention} tries, and what all its candidates have in common. */
export interface TuningOptions extends Pick<
  PBSAttentionOptions,
  'causal' | 'scale' | 'precision' | 'estimate' | 'keyBlockSize' | 'causalSafe'
> {
  /** Default 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, then three between the best of them and the next lower one. */
  thresholds?: readonly number[];
  /** Rows a block of queries. Default 128. */
  blockSizes?: readonly number[];
  /** Keys a segment, multiples of the blocks of keys. Default 256: longer ones lose to a higher threshold. */
  segmentSizes?: readonly number[];
  /** Whether keys are sorted. Default yes. */
  permute?: readonly boolean[];
  /**
   * Share of the allowed loss that is left for data that differs from the samples: with 0.2, a `maxRelativeL1` of 0.05 is
   * met by a measured 0.04, and an `attentionMass` of 0.9 by a measured 0.92. From 0 to below 1. Default 0.2: tuned on one
   * book, every layer of the demo's model then met its target on another (docs/decisions.md).
   */
  margin?: number;
  /** Told after each candidate how many were measured and how many there are at the most, over all samples. */
  onProgress?: (progress: {measured: number; candidates: number}) => void;
  /** Stops the tuning before its next candidate: it rejects with the signal's reason, and frees what it holds. */
  signal?: AbortSignal;
}

/** Options that were tried on a sample, and what they came to. */
export interface TuningCandidate extends SampleMeasures {
  /** What was tried, for `pbsAttention`. */
  options: PBSAttentionOptions;
  /** Milliseconds that the cost model of the backend expects for the sample's shape and the measured density. Not timed. */
  expectedTime: number;
  /** Expected time of exact attention over that. Not timed. */
  expectedSpeedUp: number;
  /** Whether the target is met with the margin. */
  meetsTarget: boolean;
}

/** What a layer should use. */
export interface TunedAttention {
  /** For `pbsAttention`; `{threshold: 1}`, exact attention, where nothing else meets the target or is worth it. */
  options: PBSAttentionOptions;
  /** The candidate of these options. */
  chosen: TuningCandidate;
  /** Everything that was tried, exact attention too, by expected time. */
  candidates: TuningCandidate[];
}

const defaultThresholds = [0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99];
const defaultBlockSizes = [128];
const defaultSegmentSizes = [256];
const defaultMargin = 0.2;
/** After the default thresholds: steps of them are 0.1 to 0.01, these bring the chosen one closer to the target. */
const bisections = 3;

const knownOptions = [
  'thresholds',
  'blockSizes',
  'segmentSizes',
  'permute',
  'margin',
  'causal',
  'scale',
  'precision',
  'estimate',
  'keyBlockSize',
  'causalSafe',
  'onProgress',
  'signal',
];

/** Those of them that list what to try. */
const listOptions = ['thresholds', 'blockSizes', 'segmentSizes', 'permute'];

/**
 * Chooses options of {@link pbsAttention} by measuring them on samples: of those that meet the target, the ones with the
 * least expected time. Samples are best taken at the length and from the kind of text that the model will see. Candidates
 * are measured, errors and densities against exact attention; their times are expected by the cost model that `auto` uses
 * and not taken. As with `auto`, leaving blocks out must be expected to be 1.1 times as fast as exact attention.
 *
 * ```js
 * const collector = collectAttentionSamples();
 * layers.forEach((layer) => layer.run(prompt, collector.attention)); // instead of the model's own attention
 * const tuned = await tunePBSAttention(collector.samples, {maxRelativeL1: 0.05});
 * collector.dispose();
 * tuned[0].options; // {blockSize: 128, segmentSize: 256, threshold: 0.95, permute: true, …}: of layer 0
 * tuned[0].chosen.density; // 0.31, measured
 * tuned[0].chosen.expectedSpeedUp; // 2.4
 * ```
 *
 * Memory beyond the samples: a few tensors of a sample's size, and, for an `attentionMass`, the blocks of each key order.
 * It takes a sparse call and a plan for each candidate; for an `attentionMass` also `ceil(length / keyBlockSize / headDim)`
 * times exact attention for each key order.
 *
 * @param samples query, key and value of a layer, or of several; see {@link collectAttentionSamples}. They are left
 *     undisposed.
 * @param target `{maxRelativeL1: 0.05}` or `{attentionMass: 0.95}`.
 * @param options what to try, see {@link TuningOptions}.
 * @returns one entry a sample. Their options have `auto: false`, as the choice is made for the sample's shape.
 * @throws Error (rejects) if an argument is not of that form, or as {@link pbsAttention} does.
 */
export async function tunePBSAttention(
  samples: AttentionSample | readonly AttentionSample[],
  target: TuningTarget,
  options?: TuningOptions,
): Promise<TunedAttention[]> {
  const isList = Array.isArray(samples);
  const areSamples = isList || (typeof samples === 'object' && samples !== null && 'query' in samples);
  check(areSamples, op, 'samples', `got ${describe(samples)}`, '{query, key, value} or an array of them');
  const layers = isList ? [...(samples as readonly AttentionSample[])] : [samples as AttentionSample];
  const areOptions = options === undefined || (typeof options === 'object' && options !== null);
  check(areOptions, op, 'options', `got ${describe(options)}`, 'an object');
  for (const [name, value] of Object.entries(options ?? {})) {
    check(knownOptions.includes(name), op, 'options', `got '${name}'`, knownOptions.join(', '));
    const isFilled = value === undefined || !listOptions.includes(name) || (Array.isArray(value) && value.length > 0);
    const got = Array.isArray(value) ? 'got an empty array' : `got ${describe(value)}`;
    check(isFilled, op, name, got, 'an array of one or more');
  }
  layers.forEach((sample) => checkTensors(op, sample?.query, sample?.key, sample?.value));
  checkBackend(op, PBSAttentionPlanKernel);
  const meets = targetTest(target, options?.margin === undefined ? defaultMargin : options.margin);
  const withMass = 'attentionMass' in target && target.attentionMass !== undefined;
  const {onProgress, signal} = options ?? {};
  check(
    onProgress === undefined || typeof onProgress === 'function',
    op,
    'onProgress',
    `got ${describe(onProgress)}`,
    'a function',
  );
  const isSignal = signal === undefined || typeof signal?.throwIfAborted === 'function';
  check(isSignal, op, 'signal', `got ${describe(signal)}`, 'an AbortSignal');
  const plans = layers.map((sample) => {
    const {causal, scale} = sample;
    const ofSample: TuningOptions = {causal, scale, ...givenOptions(options)};
    return {sample, options: ofSample, tried: sparseCandidates(sample, ofSample)};
  });
  const steps = options?.thresholds === undefined ? bisections : 0;
  const candidates = plans.reduce((sum, {tried}) => sum + tried.length + (tried.length > 0 ? steps : 0), 0);
  let measured = 0;
  const next = () => onProgress?.({measured: ++measured, candidates});
  const tuned: TunedAttention[] = [];
  for (const plan of plans) {
    tuned.push(await tune(plan.sample, withMass, meets, plan.options, plan.tried, next));
  }
  return tuned;
}

/** What is worth a trial on a sample: one segment is exact attention, which is a candidate in any case. */
function sparseCandidates({query, key}: AttentionSample, options: TuningOptions): PBSAttentionOptions[] {
  return candidateOptions(options).filter((candidate) => {
    const attrs = pbsAttentionAttrs(op, candidate, query, key);
    return !isExact(blockGeometry(query, key, attrs), attrs);
  });
}

async function tune(
  sample: AttentionSample,
  withMass: boolean,
  meets: (measures: AttentionMeasures) => boolean,
  options: TuningOptions,
  tried: readonly PBSAttentionOptions[],
  onMeasured: () => void,
): Promise<TunedAttention> {
  const {query, key} = sample;
  const attrsOf = (candidate: PBSAttentionOptions) => pbsAttentionAttrs(op, candidate, query, key);
  const exact = exactCandidate(sample, {...commonOptions(options), threshold: 1}, withMass);
  const candidates = [exact];
  const choose = () => {
    candidates.sort((a, b) => a.expectedTime - b.expectedTime || a.relativeL1 - b.relativeL1);
    const pays = (candidate: TuningCandidate) => candidate === exact || candidate.expectedSpeedUp >= leastGain;
    return candidates.find((candidate) => candidate.meetsTarget && pays(candidate)) ?? exact;
  };
  const measurer = new SampleMeasurer(sample, withMass, attrsOf(exact.options));
  const measure = async (candidate: PBSAttentionOptions) => {
    options.signal?.throwIfAborted();
    const attrs = attrsOf(candidate);
    const measures = await measurer.measure(attrs);
    const times = expectedTimes(sample, attrs, measures.density);
    candidates.push({options: candidate, ...measures, ...times, meetsTarget: meets(measures)});
    onMeasured();
  };
  try {
    for (const candidate of tried) {
      await measure(candidate);
    }
    for (let step = 0; step < bisections && options.thresholds === undefined; ++step) {
      const between = lowerThreshold(choose(), candidates);
      if (between === undefined) {
        break;
      }
      await measure(between);
    }
  } finally {
    measurer.dispose();
  }
  const chosen = choose();
  return {options: chosen.options, chosen, candidates};
}

/** The options of the best candidate with a threshold halfway to the next lower one that failed; if there is one. */
function lowerThreshold(
  {options}: TuningCandidate,
  candidates: readonly TuningCandidate[],
): PBSAttentionOptions | undefined {
  const {blockSize, segmentSize, permute, threshold} = options;
  const isOfSameGrid = ({options: other}: TuningCandidate) =>
    other.blockSize === blockSize && other.segmentSize === segmentSize && other.permute === permute;
  const failed = candidates
    .filter((candidate) => isOfSameGrid(candidate) && !candidate.meetsTarget)
    .map((candidate) => candidate.options.threshold!)
    .filter((other) => other < threshold!);
  return failed.length > 0 ? {...options, threshold: (Math.max(...failed) + threshold!) / 2} : undefined;
}

/** The test that a target stands for, checked. */
function targetTest(target: TuningTarget, margin: number): (measures: AttentionMeasures) => boolean {
  const isShare = typeof margin === 'number' && margin >= 0 && margin < 1;
  check(isShare, op, 'margin', `got ${describe(margin)}`, 'a number from 0 to below 1');
  const {maxRelativeL1, attentionMass} = (target ?? {}) as {
    maxRelativeL1?: number;
    attentionMass?: number;
  };
  const isObject = typeof target === 'object' && target !== null;
  const entries = isObject ? Object.entries(target).filter(([, value]) => value !== undefined) : [];
  const got = `got ${isObject ? `{${entries.map(([name, value]) => `${name}: ${describe(value)}`).join(', ')}}` : describe(target)}`;
  const isOne = entries.length === 1 && (maxRelativeL1 === undefined) !== (attentionMass === undefined);
  check(isOne, op, 'target', got, '{maxRelativeL1: number} or {attentionMass: number}');
  if (maxRelativeL1 !== undefined) {
    check(typeof maxRelativeL1 === 'number' && maxRelativeL1 > 0, op, 'target', got, 'a maxRelativeL1 above 0');
    return ({relativeL1}) => relativeL1 <= (1 - margin) * maxRelativeL1;
  }
  const share = attentionMass!;
  check(typeof share === 'number' && share >= 0 && share <= 1, op, 'target', got, 'an attentionMass from 0 to 1');
  return (measures) => 1 - measures.attentionMass! <= (1 - margin) * (1 - share);
}

/** Every combination worth a trial. */
function candidateOptions(options: TuningOptions): PBSAttentionOptions[] {
  const {thresholds = defaultThresholds, blockSizes = defaultBlockSizes, permute = [true]} = options;
  return blockSizes.flatMap((blockSize) =>
    (options.segmentSizes ?? defaultSegmentSizes).flatMap((segmentSize) =>
      permute.flatMap((sort) =>
        thresholds.map((threshold) => ({
          ...commonOptions(options),
          blockSize,
          segmentSize,
          threshold,
          permute: sort,
          auto: false,
        })),
      ),
    ),
  );
}

/** Those of the options that candidates share, as far as they are given. */
function commonOptions(options: TuningOptions): PBSAttentionOptions {
  const {causal, scale, precision, estimate, keyBlockSize, causalSafe} = options;
  return givenOptions({causal, scale, precision, estimate, keyBlockSize, causalSafe});
}

function exactCandidate(
  {query, key, value}: AttentionSample,
  options: PBSAttentionOptions,
  withMass: boolean,
): TuningCandidate {
  const [, heads] = query.shape;
  const measures = {density: 1, relativeL1: 0, ...(withMass && {attentionMass: 1})};
  const attrs = pbsAttentionAttrs(op, options, query, key);
  const geometry = blockGeometry(query, key, attrs, value);
  return {
    options,
    ...measures,
    heads: Array.from({length: heads}, () => measures),
    expectedTime: exactTime(geometry, attrs.causal, backendCosts(geometry, attrs.precision)),
    expectedSpeedUp: 1,
    meetsTarget: true,
  };
}

function expectedTimes(
  {query, key, value}: AttentionSample,
  attrs: PBSAttentionAttrs,
  density: number,
): Pick<TuningCandidate, 'expectedTime' | 'expectedSpeedUp'> {
  const geometry = blockGeometry(query, key, attrs, value);
  const costs = backendCosts(geometry, attrs.precision);
  const {visible} = countBlocks(geometry, attrs.causal);
  const expectedTime = timeOfBlocks(geometry, {kept: density * visible, visible}, attrs, costs);
  return {expectedTime, expectedSpeedUp: exactTime(geometry, attrs.causal, costs) / expectedTime};
}
