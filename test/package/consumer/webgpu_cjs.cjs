const {registerWebGPUBackend} = require('tfjs-pbs-attention/webgpu');

registerWebGPUBackend().catch((error) => console.log(error.message));
