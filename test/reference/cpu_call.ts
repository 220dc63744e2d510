import type {CPUCall} from '../../src/kernels/cpu/cpu_call';
import type {Inputs} from './attention';

/** A call as the CPU stages take it. */
export function cpuCall(
  {query, key, value}: Pick<Inputs, 'query' | 'key' | 'value'>,
  form: Pick<CPUCall, 'geometry' | 'scale' | 'causal' | 'keyLengths' | 'softCap' | 'alibiSlopes' | 'sinks' | 'mask'>,
): CPUCall {
  return {op: 'test', precision: 'float32', query, key, value, ...form};
}
