import type {KernelConfig} from '@tensorflow/tfjs-core';
import {getGradient, getKernel, registerGradient, registerKernel} from '@tensorflow/tfjs-core';
import {version} from '../version.js';
import type {RegisteredKernel} from '../attention/attention_kernels.js';
import {cpuKernels} from './cpu/index.js';
import {attentionGradients} from '../attention/gradients.js';
import {composedKernels} from './composed/index.js';
import {webglKernels} from './webgl/index.js';
import {webgpuKernels} from './webgpu/index.js';

// Registration names a backend and loads none, so every kernel can be registered whatever the page has loaded. The first
// copy of the package registers and a second (ESM beside CommonJS, a script tag) uses its kernels: they hold state per
// device, and tfjs-core would warn of each. Ops of another version refuse them.
register([...cpuKernels, ...webglKernels, ...webgpuKernels]);
for (const gradient of attentionGradients) {
  if (!getGradient(gradient.kernelName)) {
    registerGradient(gradient);
  }
}

/** Gives a backend that has no kernels of its own those that are composed of tfjs's ops, and says so on the console. */
export function registerComposed(backendName: string): void {
  register(composedKernels(backendName), {isComposed: true});
  console.warn(
    `tfjs-pbs-attention: the backend '${backendName}' has no kernels for attention; it runs composed of tfjs's ops, slower than ` +
      'on webgpu or webgl.',
  );
}

function register(kernels: KernelConfig[], marks: Pick<RegisteredKernel, 'isComposed'> = {}): void {
  for (const kernel of kernels) {
    if (!getKernel(kernel.kernelName, kernel.backendName)) {
      const registered: RegisteredKernel = {...kernel, ...marks, packageVersion: version};
      registerKernel(registered);
    }
  }
}
