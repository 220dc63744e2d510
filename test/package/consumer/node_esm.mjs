import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import * as attention from 'tfjs-pbs-attention';
import {measure} from './measure.js';

console.log(JSON.stringify(await measure(tf, attention, ['cpu'])));
