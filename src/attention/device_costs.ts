import type {AttentionCosts} from './cost_model.js';

/** What runs a backend, as far as its name tells. */
export type DeviceClass = 'discrete GPU' | 'integrated GPU' | 'software' | 'processor' | 'unknown GPU';

/** The device of a backend. */
export interface DeviceDescription {
  /** Name of the graphics adapter, as the browser gives it; `'JavaScript'` on the CPU backend. */
  adapter: string;
  deviceClass: DeviceClass;
}

/** What a calibration measured for one precision, with head dim 64 or, on slow devices, 16. */
export interface CalibratedPrecision {
  /** Multiply-adds a millisecond of exact attention. */
  multiplyAdds: number;
  /** Time of a multiply-add of block-sparse attention over that of exact attention. */
  sparseFactor: number;
}

/** Constants of the cost model, measured on one device. */
export interface CalibratedConstants {
  /** Milliseconds of the shortest call of exact attention: recording and launching. */
  exactLaunch: number;
  /** The same of block-sparse attention. */
  sparseLaunch: number;
  /** Milliseconds of a multiply-add of a query row with a key of its sample, by which blocks are chosen. */
  sampleMultiplyAdd: number;
  /** In float32. */
  float32: CalibratedPrecision;
  /** In float16, where the device multiplies float16. */
  float16?: CalibratedPrecision;
}

const software = /swiftshader|llvmpipe|lavapipe|softpipe|software|microsoft basic render|\bwarp\b/i;
const integrated = /intel|apple|adreno|qualcomm|mali|\barm\b|powervr|img-tec|videocore|broadcom|samsung|xclipse/i;
const discrete = /nvidia|geforce|quadro|tesla|\barc\b|xe-hpg|xe2-hpg|radeon (rx|pro)|\brdna/i;

/** What a browser's name of an adapter tells: vendors and families, not models. */
export function deviceClassOf(adapter: string): DeviceClass {
  if (software.test(adapter)) return 'software';
  if (discrete.test(adapter)) return 'discrete GPU';
  return integrated.test(adapter) || /\bamd\b|radeon/i.test(adapter) ? 'integrated GPU' : 'unknown GPU';
}

/**
 * How much slower than the fastest devices that we have, on which the costs were measured. Of integrated chips a guess from
 * their makers' figures, 2 to 3 TFLOPS of float32 beside 60; software was measured (SwiftShader, two cores, 2026-11-29). An unknown device counts as fast: the error is then on the side of
 * exact attention.
 */
const slowerBy: Record<DeviceClass, number> = {
  'discrete GPU': 1,
  'unknown GPU': 1,
  'integrated GPU': 20,
  software: 50_000,
  processor: 1,
};

const inUse = new WeakMap<object, CalibratedConstants>();

/** Has the costs of a backend, an object of tfjs, be those that were measured; without constants, of its class again. */
export function useConstants(backend: object, constants?: CalibratedConstants): void {
  if (constants) inUse.set(backend, constants);
  else inUse.delete(backend);
}

export function constantsInUse(backend: object): CalibratedConstants | undefined {
  return inUse.get(backend);
}

/**
 * The costs on a device: calibrated, or of its class.
 *
 * @param fastest costs of the call on the fastest devices of the backend.
 * @param reference the same of a call as the calibration measured it. Head dims may have another arithmetic.
 */
export function deviceCosts(
  backend: object,
  {deviceClass}: DeviceDescription,
  precision: 'float32' | 'float16',
  fastest: AttentionCosts,
  reference: () => AttentionCosts = () => fastest,
): AttentionCosts {
  const constants = inUse.get(backend);
  if (!constants) return slower(fastest, slowerBy[deviceClass]);
  const measured = constants[precision] ?? constants.float32;
  const {exactLaunch, sparseLaunch, sampleMultiplyAdd} = constants;
  const slowness = reference().multiplyAdds / measured.multiplyAdds;
  const choosing = sampleMultiplyAdd / fastest.sampleMultiplyAdd;
  return {
    multiplyAdds: fastest.multiplyAdds / slowness,
    sparseFactor: measured.sparseFactor,
    record: exactLaunch,
    sampledPrograms: sparseLaunch / exactLaunch,
    programs: ((sparseLaunch / exactLaunch) * fastest.programs) / fastest.sampledPrograms,
    fixed: fixedOf(fastest, sparseLaunch),
    proxyMultiplyAdd: fastest.proxyMultiplyAdd * choosing,
    sampleMultiplyAdd,
    pooledValue: fastest.pooledValue * choosing,
    blockPairValue: fastest.blockPairValue * choosing,
    blockTriple: fastest.blockTriple * choosing,
  };
}

/** What no calibration measures by itself: no more than a whole call that does next to nothing. */
export function fixedOf({fixed}: AttentionCosts, sparseLaunch: number): number {
  return Math.min(fixed, sparseLaunch);
}

/** All arithmetic takes so many times longer; recording does not, nor does waiting for a large device that is not filled. */
function slower(costs: AttentionCosts, times: number): AttentionCosts {
  if (times === 1) return costs;
  return {
    ...costs,
    multiplyAdds: costs.multiplyAdds / times,
    proxyMultiplyAdd: costs.proxyMultiplyAdd * times,
    sampleMultiplyAdd: costs.sampleMultiplyAdd * times,
    pooledValue: costs.pooledValue * times,
    blockPairValue: costs.blockPairValue * times,
    blockTriple: costs.blockTriple * times,
  };
}
