import {readFile} from 'node:fs/promises';
import '@tensorflow/tfjs-backend-cpu';
// Registers the gradients of tfjs-core's own ops, which its build for Node leaves out.
import '@tensorflow/tfjs-layers';
import './expose_gc';
import {setEnvironment} from './environment';

setEnvironment({
  backends: ['cpu'],
  async readFile(path) {
    const bytes = await readFile(new URL(`../../${path}`, import.meta.url));
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  },
});
