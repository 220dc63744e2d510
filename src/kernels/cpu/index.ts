import type {KernelConfig} from '@tensorflow/tfjs-core';
import {attentionKernels} from '../../attention/driver.js';
import {PackFloat16} from '../../attention/attention_kernels.js';
import {attend} from './attend/attend.js';
import {costsOf} from './costs.js';
import {attendGradients} from './gradients/attend_gradients.js';
import {hostStages} from './host_stages.js';
import {packFloat16} from './pack_float16.js';

/** The readable reference: one file a stage, in float64. */
export const cpuKernels: KernelConfig[] = [
  ...attentionKernels(hostStages({backendName: 'cpu', costs: costsOf, attend, attendGradients})),
  {kernelName: PackFloat16, backendName: 'cpu', kernelFunc: ({inputs}) => packFloat16(inputs['x']!)},
];
