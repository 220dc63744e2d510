import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-backend-webgl';
import '@tensorflow/tfjs-backend-webgpu';
import * as tf from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {flashAttention} from '../src/index';
import {arithmeticOf, backendDevice} from '../src/internal';
import {registerWebGPUBackend} from '../src/webgpu';
import {BACKEND_NAMES, type BackendName} from './backend_names';
import type {Machine} from './engine/protocol';
import {Failure} from '../runner/failure';
import '../runner/llama/kernels/webgpu/index';

/** The backend that computes, and what is known of the hardware under it. */
export interface Backend extends Machine {
  /** Throws a `Failure` if the device reported an error or was lost since it was chosen: results cannot be trusted then. */
  throwIfFailed(): void;
}

type Hardware = Omit<Backend, 'backend' | 'reason'>;

/**
 * Makes a backend current: the preferred one if asked, else the fastest that has the library's kernels and
 * computes correctly here.
 *
 * @throws Failure if the preferred one, or every one, does not work, with the reasons.
 */
export async function chooseBackend(preferred?: BackendName): Promise<Backend> {
  const passedOver: string[] = [];
  for (const name of preferred === undefined ? BACKEND_NAMES : [preferred]) {
    const fault = await findFault(name);
    if (fault === undefined) {
      const why = preferred === undefined ? ['the fastest that works here', ...passedOver] : ['asked for'];
      return {backend: name, reason: why.join('; '), ...describeHardware(name)};
    }
    if (preferred !== undefined) throw new Failure('BackendError', `backend ${name} does not work here: ${fault}`);
    passedOver.push(`${name}: ${fault}`);
  }
  throw new Failure('BackendError', `no backend works here: ${passedOver.join('; ')}`);
}

/** Makes a backend current and tries it; says in words what is wrong with it, or nothing. */
async function findFault(name: BackendName): Promise<string | undefined> {
  try {
    if (name === 'webgpu') {
      if (!('gpu' in navigator)) return 'this browser has no WebGPU, or the page is not on https or localhost';
      if (!(await hasAdapter())) return 'WebGPU offers no adapter';
      await registerWebGPUBackend();
    }
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

function describeHardware(name: BackendName): Hardware {
  switch (name) {
    case 'webgpu':
      return describeDevice((tf.backend() as WebGPUBackend).device);
    case 'webgl':
      return describeContext((tf.backend() as MathBackendWebGL).gpgpu.gl);
    case 'cpu':
      return {
        adapter: 'none (JavaScript on the processor)',
        software: true,
        features: [],
        float16: 'none',
        throwIfFailed: () => {},
      };
  }
}

/** Head dim by which the page says whether float16 does anything; others may fit the matrix units or not. */
const COMMON_HEAD_DIM = 64;

const FLOAT16 = {float32: 'none', float16: 'shader', 'matrix units': 'matrix units'} as const;

function describeDevice(device: GPUDevice): Hardware {
  const {adapter, deviceClass} = backendDevice();
  let failure: Failure | undefined;
  // WebGPU reports invalid work here and nowhere else: the results are zeros, without an exception.
  device.addEventListener('uncapturederror', ({error}) => {
    const isMemory = error instanceof GPUOutOfMemoryError;
    // Commands that use what found no memory are invalid, and may be heard of first.
    if (failure === undefined || (isMemory && failure.name === 'BackendError')) {
      failure = new Failure(isMemory ? 'OutOfMemoryError' : 'BackendError', `WebGPU: ${error.message}`);
    }
  });
  void device.lost.then(({message}) => {
    // Lost for want of memory, it has said so before; what matters is that nothing runs on it any more.
    if (failure?.name !== 'OutOfMemoryError') failure = new Failure('DeviceLostError', `WebGPU: ${message}`);
  });
  return {
    adapter,
    software: deviceClass === 'software',
    features: [...device.features].sort(),
    float16: FLOAT16[arithmeticOf(device, {headDim: COMMON_HEAD_DIM, valueDim: COMMON_HEAD_DIM}, 'float16')],
    throwIfFailed: () => {
      if (failure !== undefined) throw failure;
    },
  };
}

function describeContext(gl: WebGLRenderingContext): Hardware {
  const {adapter, deviceClass} = backendDevice();
  return {
    adapter,
    software: deviceClass === 'software',
    features: [],
    float16: 'none',
    throwIfFailed: () => {
      if (gl.isContextLost()) throw new Failure('DeviceLostError', 'WebGL: the context was lost');
    },
  };
}
