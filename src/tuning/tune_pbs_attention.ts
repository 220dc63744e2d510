import {PBSAttentionPlan as PBSAttentionPlanKernel} from '../attention/attention_kernels.js';
import {backendCosts} from '../kernels/backend_costs.js';
import {blockGeometry, isExact} from '../attention/block_geometry.js';
import {countBlocks, exactTime, leastGain, timeOfBlocks} from '../attention/cost_model.js';
import {checkTensors} from '../ops/attention_tensors.js';
import {check, checkBackend, describe, pbsAttentionAttrs} from '../ops/check_arguments.js';
import type {PBSAttentionOptions} from '../ops/options.js';
import {givenOptions} from '../ops/options.js';
import type {AttentionSample} from './attention_samples.js';
import {cheapestChoice} from './cheapest_choice.js';
import type {AttentionMeasures} from './sample_measurer.js';
import {SampleMeasurer} from './sample_measurer.js';

const op = 'tunePBSAttention';

/** What {@link tunePBSAttention} has to reach; one of the two. */
export type TuningTarget =
  | {
      /** Largest relative L1 error of a layer's output, Σ|sparse − exact| / Σ|exact|, mean over samples: above 0. */
      maxRelativeL1: number;
    }
  | {
      /** Least share of the true attention that the kept blocks hold, mean over query rows, heads and samples: from 0 to 1. */
      attentionMass: number;
    };

const commonOptions = [
  'causal',
  'scale',
  'precision',
  'estimate',
  'blockSize',
  'keyBlockSize',
  'segmentSize',
  'permute',
  'causalSafe',
] as const;

/** What {@link tunePBSAttention} tries, and what all its candidates have in common. */
export interface TuningOptions extends Pick<PBSAttentionOptions, (typeof commonOptions)[number]> {
  /** Default 0.7, 0.75, 0.8, 0.84, 0.87, 0.9, 0.92, 0.94, 0.96, 0.98. */
  thresholds?: readonly number[];
  /**
   * Share of the allowed loss that is left for data that differs from the samples: with 0.2, a `maxRelativeL1` of 0.05 is
   * met by a measured 0.04, and an `attentionMass` of 0.9 by a measured 0.92. From 0 to below 1. Default 0.2: tuned on one
   * book, every layer of the demo's model then met its target on another (docs/decisions.md).
   */
  margin?: number;
  /** Told after each candidate how many were measured and how many there are, over all samples. */
  onProgress?: (progress: {measured: number; candidates: number}) => void;
  /** Stops the tuning before its next candidate: it rejects with the signal's reason, and frees what it holds. */
  signal?: AbortSignal;
}

/** Options that were tried on a sample, and what they came to. */
export interface TuningCandidate extends AttentionMeasures {
  /** What was tried, for `pbsAttention`. */
  options: PBSAttentionOptions;
  /** Milliseconds that the cost model of the backend expects for the sample's shape and the measured density. Not timed. */
  expectedTime: number;
  /** Expected time of exact attention over that. Not timed. */
  expectedSpeedUp: number;
}

/** What a layer should use. */
export interface TunedAttention {
  /** For `pbsAttention`; `{threshold: 1}`, exact attention, where nothing else is within the target or worth it. */
  options: PBSAttentionOptions;
  /** The candidate of these options. */
  chosen: TuningCandidate;
  /** Everything that was tried, exact attention too, by expected time. */
  candidates: TuningCandidate[];
}

const defaultThresholds = [0.7, 0.75, 0.8, 0.84, 0.87, 0.9, 0.92, 0.94, 0.96, 0.98];
const defaultMargin = 0.2;
const knownOptions: readonly string[] = ['thresholds', 'margin', ...commonOptions, 'onProgress', 'signal'];

/**
 * Chooses thresholds of {@link pbsAttention} by measuring them on samples, one of each layer: of the choices that meet the target,
 * the one with the least expected time in all. What is allowed is a mean over the samples, and goes where it saves most: a
 * layer whose output suffers little by blocks left out gets a low threshold, another a high one. (That every layer have the
 * same error instead loses 1.4 to 2.4 times more at the same density: docs/decisions.md.) Samples are best taken at the length and from the kind of
 * text that the model will see. Candidates are measured, errors and densities against exact attention; their times are expected by
 * the cost model that `auto` uses and not taken. As with `auto`, leaving blocks out must be expected to be 1.05 times as fast as
 * exact attention.
 *
 * ```js
 * const collector = collectAttentionSamples();
 * layers.forEach((layer) => layer.run(prompt, collector.attention)); // instead of the model's own attention
 * const tuned = await tunePBSAttention(collector.samples, {maxRelativeL1: 0.05});
 * collector.dispose();
 * tuned[0].options; // {threshold: 0.92, auto: false}: of layer 0
 * tuned[0].chosen.density; // 0.31, measured
 * tuned[0].chosen.expectedSpeedUp; // 2.4
 * ```
 *
 * Memory beyond the samples: a few tensors of a sample's size, and, for an `attentionMass`, the blocks of a key order.
 * It takes a sparse call and a plan for each candidate; for an `attentionMass` also `ceil(length / keyBlockSize / headDim)`
 * times exact attention for each sample.
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
  check(layers.length > 0, op, 'samples', 'got none', 'one or more, of a collector that is not disposed yet');
  checkOptions(options);
  layers.forEach((sample) => checkTensors(op, sample?.query, sample?.key, sample?.value));
  checkBackend(op, PBSAttentionPlanKernel);
  const {thresholds = defaultThresholds, margin = defaultMargin, onProgress, signal, ...given} = options ?? {};
  const {lossOf, allowed, withMass} = checkedTarget(target, margin);
  const plans = layers.map((sample) => {
    const common = {...givenOptions({causal: sample.causal, scale: sample.scale}), ...givenOptions(given)};
    return {sample, common, tried: sparseCandidates(sample, common, thresholds)};
  });
  const progress = {measured: 0, candidates: plans.reduce((sum, {tried}) => sum + tried.length, 0)};
  const tried: TuningCandidate[][] = [];
  for (const {sample, common, tried: pending} of plans) {
    const {causal, scale, precision} = common;
    const exact = exactCandidate(sample, {...givenOptions({causal, scale, precision}), threshold: 1}, withMass);
    const candidates = [exact];
    const measurer = new SampleMeasurer(
      sample,
      withMass,
      pbsAttentionAttrs(op, exact.options, sample.query, sample.key),
    );
    try {
      for (const candidate of pending) {
        signal?.throwIfAborted();
        candidates.push(await measured(measurer, sample, candidate));
        ++progress.measured;
        onProgress?.({...progress});
      }
    } finally {
      measurer.dispose();
    }
    tried.push(candidates.sort((a, b) => a.expectedTime - b.expectedTime || a.relativeL1 - b.relativeL1));
  }
  const worthIt = tried.map((candidates) =>
    candidates.filter(({density, expectedSpeedUp}) => density === 1 || expectedSpeedUp >= leastGain),
  );
  const choices = worthIt.map((candidates) =>
    candidates.map((candidate) => ({time: candidate.expectedTime, loss: lossOf(candidate)})),
  );
  return cheapestChoice(choices, allowed * layers.length).map((index, layer) => {
    const chosen = worthIt[layer][index];
    return {options: chosen.options, chosen, candidates: tried[layer]};
  });
}

function checkOptions(options: TuningOptions | undefined): void {
  const areOptions = options === undefined || (typeof options === 'object' && options !== null);
  check(areOptions, op, 'options', `got ${describe(options)}`, 'an object');
  for (const name of Object.keys(options ?? {})) {
    check(knownOptions.includes(name), op, 'options', `got '${name}'`, knownOptions.join(', '));
  }
  const {thresholds, onProgress, signal} = options ?? {};
  const areThresholds = thresholds === undefined || (Array.isArray(thresholds) && thresholds.length > 0);
  const got = Array.isArray(thresholds) ? 'got an empty array' : `got ${describe(thresholds)}`;
  check(areThresholds, op, 'thresholds', got, 'an array of one or more');
  const isCallback = onProgress === undefined || typeof onProgress === 'function';
  check(isCallback, op, 'onProgress', `got ${describe(onProgress)}`, 'a function');
  const isSignal = signal === undefined || typeof signal?.throwIfAborted === 'function';
  check(isSignal, op, 'signal', `got ${describe(signal)}`, 'an AbortSignal');
}

/** What is worth a trial on a sample: one segment is exact attention, which is a candidate in any case. */
function sparseCandidates(
  {query, key}: AttentionSample,
  common: PBSAttentionOptions,
  thresholds: readonly number[],
): PBSAttentionOptions[] {
  return thresholds
    .map((threshold) => ({...common, threshold, auto: false}))
    .filter((candidate) => {
      const attrs = pbsAttentionAttrs(op, candidate, query, key);
      return !isExact(blockGeometry(query, key, attrs), attrs);
    });
}

async function measured(
  measurer: SampleMeasurer,
  {query, key, value}: AttentionSample,
  options: PBSAttentionOptions,
): Promise<TuningCandidate> {
  const attrs = pbsAttentionAttrs(op, options, query, key);
  const measures = await measurer.measure(attrs);
  const geometry = blockGeometry(query, key, attrs, value);
  const costs = backendCosts(geometry, attrs.precision);
  const {visible} = countBlocks(geometry, attrs.causal);
  const expectedTime = timeOfBlocks(geometry, {kept: measures.density * visible, visible}, attrs, costs);
  const expectedSpeedUp = exactTime(geometry, attrs.causal, costs) / expectedTime;
  return {options, ...measures, expectedTime, expectedSpeedUp};
}

function exactCandidate(
  {query, key, value}: AttentionSample,
  options: PBSAttentionOptions,
  withMass: boolean,
): TuningCandidate {
  const attrs = pbsAttentionAttrs(op, options, query, key);
  const geometry = blockGeometry(query, key, attrs, value);
  const expectedTime = exactTime(geometry, attrs.causal, backendCosts(geometry, attrs.precision));
  return {options, density: 1, relativeL1: 0, ...(withMass && {attentionMass: 1}), expectedTime, expectedSpeedUp: 1};
}

/** What a target allows, with the margin, and how a candidate's loss is read. */
interface CheckedTarget {
  lossOf: (measures: AttentionMeasures) => number;
  /** Mean over samples. */
  allowed: number;
  withMass: boolean;
}

function checkedTarget(target: TuningTarget, margin: number): CheckedTarget {
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
    return {lossOf: ({relativeL1}) => relativeL1, allowed: (1 - margin) * maxRelativeL1, withMass: false};
  }
  const share = attentionMass!;
  check(typeof share === 'number' && share >= 0 && share <= 1, op, 'target', got, 'an attentionMass from 0 to 1');
  return {lossOf: (measures) => 1 - measures.attentionMass!, allowed: (1 - margin) * (1 - share), withMass: true};
}
