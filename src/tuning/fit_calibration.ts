import type {BlockGeometry} from '../attention/block_geometry.js';
import type {AttentionCosts} from '../attention/cost_model.js';
import {countBlocks, exactTime, timeOfBlocks} from '../attention/cost_model.js';
import type {CalibratedPrecision} from '../attention/device_costs.js';
import {fixedOf} from '../attention/device_costs.js';

/** Times of one precision, in milliseconds a call: exact, and sparse with few and with many blocks. */
export interface PrecisionTimes {
  exact: number;
  few: number;
  many: number;
  /** Whether the call with few blocks takes no longer than it is recorded: then its time says nothing of the device. */
  fewIsRecording?: boolean;
}

/** What was timed: sizes, and the blocks of a head that each sparse call kept. */
export interface TimedBlocks {
  geometry: BlockGeometry;
  few: number;
  many: number;
}

/** Constants of one precision, and what choosing blocks costs; `isPlausible` false where defaults had to stand in. */
export interface FittedPrecision extends CalibratedPrecision {
  sampleMultiplyAdd: number;
  isPlausible: boolean;
}

/**
 * Every device so far has shown factors of sparse attention from 0.9 to 1.5, and choosing blocks as slow as attention, within a factor of
 * 3: what lies far outside is a disturbed measurement.
 */
const factors = {least: 0.7, most: 2.5};
const mostUnlike = 5;

/**
 * Solves the cost model for its constants: multiply-adds of exact attention from its time; of sparse attention, from the
 * difference of the two sparse calls; the rest of the shorter one that keeps the device busy is what choosing blocks takes.
 *
 * @param costs of the class, which stand in for what no time tells, in their ratio to exact attention.
 * @throws Error if exact attention has no time.
 */
export function fitPrecision(
  {exact, few, many, fewIsRecording = false}: PrecisionTimes,
  timed: TimedBlocks,
  costs: AttentionCosts,
  sparseLaunch: number,
): FittedPrecision {
  if (!(exact > 0 && Number.isFinite(exact))) {
    throw new Error(`calibrateAttention: times: got ${exact} ms for exact attention; takes a clock that goes on.`);
  }
  const {geometry} = timed;
  const oneMultiplyAdd: AttentionCosts = {...costs, record: 0, multiplyAdds: 1, fixed: 0};
  const multiplyAdds = exactTime(geometry, true, oneMultiplyAdd) / exact;
  const slowness = costs.multiplyAdds / multiplyAdds;
  // Of a head's blocks alone, and of choosing them alone.
  const {visible} = countBlocks(geometry, true);
  const choosing = {...costs, record: 0, fixed: 0};
  const ofChoosing = timeOfBlocks(geometry, {kept: 0, visible}, {estimate: 'sampled'}, choosing);
  const ofBlocks = (kept: number, sparseFactor: number) =>
    timeOfBlocks(
      geometry,
      {kept, visible: 0},
      {estimate: 'sampled'},
      {...choosing, proxyMultiplyAdd: 0, sparseFactor},
    ) * slowness;

  const factor = (many - few) / (ofBlocks(timed.many, 1) - ofBlocks(timed.few, 1));
  const isFactor = !fewIsRecording && factor >= factors.least && factor <= factors.most;
  const sparseFactor = isFactor ? factor : costs.sparseFactor;
  const [busy, kept] = fewIsRecording ? [many, timed.many] : [few, timed.few];
  const rest = busy - ofBlocks(kept, sparseFactor) - fixedOf(costs, sparseLaunch);
  const scale = rest / ofChoosing;
  const isScale = scale >= slowness / mostUnlike && scale <= slowness * mostUnlike;
  return {
    multiplyAdds,
    sparseFactor,
    sampleMultiplyAdd: costs.sampleMultiplyAdd * (isScale ? scale : slowness),
    isPlausible: (isFactor || fewIsRecording) && isScale,
  };
}

/**
 * Milliseconds of a call and of waiting for the device, from one call and from several in a row.
 *
 * @returns at least a microsecond a call, and no more than all of the time of several.
 */
export function fitLaunch(one: number, several: number, calls: number): {call: number; wait: number} {
  const most = several > 0 ? several / calls : one;
  const call = Math.max(1e-3, Math.min((several - one) / (calls - 1) || 0, most));
  return {call, wait: Math.max(0, one - call || 0)};
}
