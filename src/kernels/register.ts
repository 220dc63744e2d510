import {getGradient, getKernel, registerGradient, registerKernel} from '@tensorflow/tfjs-core';
import {version} from '../version.js';
import type {RegisteredKernel} from '../attention/attention_kernels.js';
import {cpuKernels} from './cpu/index.js';
import {attentionGradients} from '../attention/gradients.js';
import {webglKernels} from './webgl/index.js';
import {webgpuKernels} from './webgpu/index.js';

// Registration names a backend and loads none, so every kernel can be registered whatever the page has loaded. The first
// copy of the package registers and a second (ESM beside CommonJS, a script tag) uses its kernels: they hold state per
// device, and tfjs-core would warn of each. Ops of another version refuse them.
for (const kernel of [...cpuKernels, ...webglKernels, ...webgpuKernels]) {
  if (!getKernel(kernel.kernelName, kernel.backendName)) {
    const registered: RegisteredKernel = {...kernel, packageVersion: version};
    registerKernel(registered);
  }
}
for (const gradient of attentionGradients) {
  if (!getGradient(gradient.kernelName)) {
    registerGradient(gradient);
  }
}
