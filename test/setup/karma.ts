import {backend, env, ready, setBackend} from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
// tfjs-core leaves the gradients of its own ops to this module.
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import '@tensorflow/tfjs-backend-webgpu';
import '../../runner/llama/kernels/webgpu/index';
import {setEnvironment} from './environment';
import {failOnDeviceErrors} from './watch_device';

// tfjs compiles its own WebGL programs once, not for every shape, which took most of the time of the model's tests. The demo's tests
// leave the flag as it is.
env().set('WEBGL_USE_SHAPES_UNIFORMS', true);

setEnvironment({
  backends: ['webgpu', 'webgl'],
  async readFile(path) {
    const response = await fetch(`/base/${path}`);
    if (!response.ok) {
      throw new Error(`${path}: ${response.status}`);
    }
    return response.arrayBuffer();
  },
});

failOnDeviceErrors(async () => {
  await setBackend('webgpu');
  await ready();
  return (backend() as WebGPUBackend).device;
});
