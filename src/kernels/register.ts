import {registerKernel} from '@tensorflow/tfjs-core';
import {cpuKernels} from './cpu/index.js';
import {webglKernels} from './webgl/index.js';
import {webgpuKernels} from './webgpu/index.js';

// Registration names a backend and loads none, so every kernel can be registered whatever the page has loaded.
for (const kernel of [...cpuKernels, ...webglKernels, ...webgpuKernels]) {
  registerKernel(kernel);
}
