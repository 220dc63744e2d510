import {registerWebGPUBackend} from 'tfjs-pbs-attention/webgpu';

console.log(await registerWebGPUBackend().catch((error) => error.message));
