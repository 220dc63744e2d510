import {setBackend} from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-wasm';
import {setEnvironment} from './environment';

setEnvironment({composed: ['wasm']});
// It would take the place of the CPU where a test sets none.
await setBackend('cpu');
