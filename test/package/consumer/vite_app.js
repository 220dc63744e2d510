import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-backend-webgl';
import * as attention from 'tfjs-pbs-attention';
import {registerWebGPUBackend} from 'tfjs-pbs-attention/webgpu';
import {measure} from './measure.js';

window.measured = (async () => {
  await registerWebGPUBackend();
  return measure(tf, attention, ['cpu', 'webgl', 'webgpu']);
})();
