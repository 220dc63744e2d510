import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-backend-webgl';
import '@tensorflow/tfjs-backend-webgpu';
import * as tf from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {flashAttention} from '../src/index';
import {BACKEND_NAMES, isBackendName} from './backend_names';

/** The backend that computes, and what is known of the hardware under it. */
export interface Backend {
  name: string;
  /** Name of the graphics adapter, as the browser gives it. */
  adapter: string;
  /** No graphics hardware is in play: times say nothing about a GPU. */
  software: boolean;
  /** Why this backend and not another. */
  reason: string;
  /** Throws if the device reported an error or was lost since it was chosen: results cannot be trusted then. */
  throwIfFailed(): void;
}

/**
 * Makes a backend current: the preferred one if asked, else the fastest that has the library's kernels and
 * computes correctly here.
 *
 * @throws Error if the preferred one, or every one, does not work, with the reasons.
 */
export async function chooseBackend(preferred?: string): Promise<Backend> {
  if (preferred !== undefined && !isBackendName(preferred)) {
    throw new Error(`backend is "${preferred}"; accepted: ${BACKEND_NAMES.join(', ')}`);
  }
  const passedOver: string[] = [];
  for (const name of preferred === undefined ? BACKEND_NAMES : [preferred]) {
    const fault = await findFault(name);
    if (fault === undefined) {
      const why = preferred === undefined ? ['the fastest that works here', ...passedOver] : ['asked for'];
      return {name, reason: why.join('; '), ...describeHardware(name)};
    }
    if (preferred !== undefined) throw new Error(`backend ${name} does not work here: ${fault}`);
    passedOver.push(`${name}: ${fault}`);
  }
  throw new Error(`no backend works here: ${passedOver.join('; ')}`);
}

/** Makes a backend current and tries it; says in words what is wrong with it, or nothing. */
async function findFault(name: string): Promise<string | undefined> {
  if (tf.getKernel('PBSAttention', name) === undefined) return 'it has no kernel for PBS attention';
  if (name === 'webgpu') {
    if (!('gpu' in navigator)) return 'this browser has no WebGPU, or the page is not on https or localhost';
    if (!(await hasAdapter())) return 'WebGPU offers no adapter';
  }
  try {
    if (!(await tf.setBackend(name))) return 'it cannot be initialised';
    return (await attendsCorrectly()) ? undefined : 'it computes wrong results';
  } catch (error) {
    return `it fails: ${(error as Error).message}`;
  }
}

/** A browser whose GPU process is still starting answers that there is no adapter, so that is asked again. */
async function hasAdapter(): Promise<boolean> {
  for (let attempt = 0; attempt < 3; ++attempt) {
    if ((await navigator.gpu.requestAdapter()) !== null) return true;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  return false;
}

/** A lone token attends to itself, so its output is its value. */
async function attendsCorrectly(): Promise<boolean> {
  const value = tf.tensor4d([1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 1, 8]);
  const output = flashAttention(value, value, value);
  try {
    const [expected, got] = await Promise.all([value.data(), output.data()]);
    return expected.every((x, i) => Math.abs(x - got[i]) < 1e-3);
  } finally {
    tf.dispose([value, output]);
  }
}

function describeHardware(name: string): Pick<Backend, 'adapter' | 'software' | 'throwIfFailed'> {
  switch (name) {
    case 'webgpu':
      return describeDevice((tf.backend() as WebGPUBackend).device);
    case 'webgl':
      return describeContext((tf.backend() as MathBackendWebGL).gpgpu.gl);
    default:
      return {adapter: 'none (JavaScript on the processor)', software: true, throwIfFailed: () => {}};
  }
}

function describeDevice(device: GPUDevice): Pick<Backend, 'adapter' | 'software' | 'throwIfFailed'> {
  const {vendor, architecture, device: model, description, isFallbackAdapter} = device.adapterInfo;
  const adapter = [vendor, architecture, model, description].filter((part) => part !== '').join(' ') || 'unnamed';
  let failure: string | undefined;
  // WebGPU reports invalid work here and nowhere else: the results are zeros, without an exception.
  device.addEventListener('uncapturederror', ({error}) => (failure ??= error.message));
  void device.lost.then(({message}) => (failure ??= `the device was lost (${message}); reload the page`));
  return {
    adapter,
    software: isFallbackAdapter || isSoftware(adapter),
    throwIfFailed: () => {
      if (failure !== undefined) throw new Error(`WebGPU: ${failure}`);
    },
  };
}

function describeContext(gl: WebGLRenderingContext): Pick<Backend, 'adapter' | 'software' | 'throwIfFailed'> {
  const extension = gl.getExtension('WEBGL_debug_renderer_info');
  const adapter = extension ? String(gl.getParameter(extension.UNMASKED_RENDERER_WEBGL)) : 'unnamed';
  return {
    adapter,
    software: isSoftware(adapter),
    throwIfFailed: () => {
      if (gl.isContextLost()) throw new Error('WebGL: the context was lost; reload the page');
    },
  };
}

function isSoftware(adapter: string): boolean {
  return /swiftshader|llvmpipe|lavapipe|softpipe|microsoft basic render|\bwarp\b/i.test(adapter);
}
