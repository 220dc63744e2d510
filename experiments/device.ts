import '@tensorflow/tfjs-backend-cpu';
import {ready, setBackend} from '@tensorflow/tfjs-core';
import type {Timer} from '../bench/device';
import type {Precision} from '../bench/our_attention';
import '../runner/llama/kernels/webgpu';
import {openWebGPU} from '../bench/webgpu/device';
import {openDawn} from '../hosts/dawn';

export const BACKENDS = ['webgpu', 'cpu'] as const;
export type BackendName = (typeof BACKENDS)[number];

/** What experiments need of the backend that they run on. */
export interface ExperimentDevice {
  adapter: string;
  /** Errors of the device so far; a result that came with one is worth nothing. */
  errors: string[];
  /** Absent where programs cannot be timed. */
  timer?: Timer;
  /** Precisions that attention has there. */
  precisions: readonly Precision[];
}

/**
 * Makes a backend current: WebGPU through Dawn, or plain JavaScript, which is enough for a few hundred tokens.
 *
 * @param without features of WebGPU that are left out.
 */
export async function openDevice(name: BackendName, without: string[] = []): Promise<ExperimentDevice> {
  if (name === 'webgpu') {
    openDawn();
    const {about, errors, timer, precisions, whyNot} = await openWebGPU(without);
    const usable = precisions.filter((precision) => whyNot(precision) === undefined);
    return {adapter: about.adapter, errors, timer, precisions: usable};
  }
  await setBackend('cpu');
  await ready();
  return {adapter: 'the processor, in JavaScript', errors: [], precisions: ['float32']};
}
