import {backend, getBackend} from '@tensorflow/tfjs-core';
import {PBSAttention} from '../attention/attention_kernels.js';
import type {CalibratedConstants, CalibratedPrecision} from '../attention/device_costs.js';
import {useConstants} from '../attention/device_costs.js';
import {backendDevice} from '../kernels/backend_costs.js';
import {check, checkOwnKernels, describe} from '../ops/check_arguments.js';

const op = 'useAttentionCalibration';

/** A backend that can be calibrated. */
export type CalibratedBackend = 'cpu' | 'webgl' | 'webgpu';

const backends: readonly CalibratedBackend[] = ['cpu', 'webgl', 'webgpu'];

/** What {@link calibrateAttention} measured on a device; plain, for JSON. */
export interface AttentionCalibration {
  /** Of this form; another one means something else by its constants. */
  version: 1;
  /** The backend that was measured. */
  backend: CalibratedBackend;
  /** Name of its graphics adapter, as the browser gives it; `'JavaScript'` on the CPU backend. */
  adapter: string;
  /** When, as `Date.prototype.toISOString` writes it. */
  date: string;
  /** Of the cost model. */
  constants: CalibratedConstants;
}

/** Longest name of an adapter. */
const longestName = 300;

/**
 * Has `auto` and expected times on the active backend go by a calibration, until the page is left or the backend replaced. Without one
 * they go by the class of the device.
 *
 * ```js
 * const stored = localStorage.getItem('attention');
 * if (stored) useAttentionCalibration(JSON.parse(stored));
 * ```
 *
 * @param calibration of {@link calibrateAttention}, as it was or read from JSON; `undefined`: none.
 * @throws Error if it is no calibration, if it was made on another backend or adapter than the active one, or if that has no kernels of its own.
 */
export function useAttentionCalibration(calibration: AttentionCalibration | undefined): void {
  checkOwnKernels(op, PBSAttention);
  if (calibration === undefined) {
    useConstants(backend());
    return;
  }
  const {backend: of, adapter, constants} = checkedCalibration(calibration);
  check(of === getBackend(), op, 'calibration', `got one of ${of}`, `one of the active backend, ${getBackend()}`);
  const active = backendDevice().adapter;
  check(adapter === active, op, 'calibration', `got one of the adapter '${adapter}'`, `one of '${active}'`);
  useConstants(backend(), constants);
}

/** A copy of the parts that a calibration has; throws what is wrong with it. */
export function checkedCalibration(given: unknown): AttentionCalibration {
  const takes = 'what calibrateAttention gave';
  const partsOf = (name: string, value: unknown) => {
    check(typeof value === 'object' && value !== null, op, name, `got ${describe(value)}`, takes);
    return value as Record<string, unknown>;
  };
  const {version, backend: name, adapter, date, constants} = partsOf('calibration', given);
  check(version === 1, op, 'calibration.version', `got ${describe(version)}`, '1: calibrate anew');
  const of = backends.find((known) => known === name);
  check(of !== undefined, op, 'calibration.backend', `got ${describe(name)}`, backends.join(', '));
  const isName = typeof adapter === 'string' && adapter.length <= longestName;
  check(isName, op, 'calibration.adapter', `got ${describe(adapter)}`, `at most ${longestName} characters`);
  const isDate = typeof date === 'string' && date.length <= 30 && Number.isFinite(Date.parse(date));
  check(isDate, op, 'calibration.date', `got ${describe(date)}`, 'a date as toISOString writes it');

  const constant = (name: string, value: unknown): number => {
    const isConstant = typeof value === 'number' && Number.isFinite(value) && value > 0;
    check(isConstant, op, `calibration.constants.${name}`, `got ${describe(value)}`, 'a finite number above 0');
    return value;
  };
  const precision = (name: string, value: unknown): CalibratedPrecision => {
    const {multiplyAdds, sparseFactor} = partsOf(`calibration.constants.${name}`, value);
    return {
      multiplyAdds: constant(`${name}.multiplyAdds`, multiplyAdds),
      sparseFactor: constant(`${name}.sparseFactor`, sparseFactor),
    };
  };
  const {exactLaunch, sparseLaunch, sampleMultiplyAdd, float32, float16} = partsOf('calibration.constants', constants);
  return {
    version,
    backend: of,
    adapter,
    date,
    constants: {
      exactLaunch: constant('exactLaunch', exactLaunch),
      sparseLaunch: constant('sparseLaunch', sparseLaunch),
      sampleMultiplyAdd: constant('sampleMultiplyAdd', sampleMultiplyAdd),
      float32: precision('float32', float32),
      ...(float16 !== undefined && {float16: precision('float16', float16)}),
    },
  };
}
