import {readFile} from 'node:fs/promises';
import '@tensorflow/tfjs-backend-cpu';
// tfjs-core leaves the gradients of its own ops to this module.
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import '../../runner/llama/kernels/webgpu/index';
import './expose_gc';
import {setEnvironment} from './environment';
import {registerDawnBackend} from '../../hosts/dawn';
import {failOnDeviceErrors} from './watch_device';

const device = await registerDawnBackend();
const {vendor, architecture, description} = device.adapterInfo;
console.log(`adapter: ${vendor} ${architecture} ${description}; features: ${[...device.features].join(', ')}`);
failOnDeviceErrors(async () => device);

setEnvironment({
  backends: ['webgpu'],
  async readFile(path) {
    const bytes = await readFile(path);
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  },
});
