// ESM and CommonJS in one process, as where a dependency requires what the application imports.
import {createRequire} from 'node:module';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import * as attention from 'tfjs-pbs-attention';
import {measure} from './measure.js';

const required = createRequire(import.meta.url)('tfjs-pbs-attention');
if (required.pbsAttention === attention.pbsAttention) {
  throw new Error('not two copies');
}
const imported = await measure(tf, attention, ['cpu']);
console.log(JSON.stringify({...(await measure(tf, required, ['cpu'])), imported: imported.cpu}));
