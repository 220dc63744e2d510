/** Backends that the demo can run on, fastest first. */
export const BACKEND_NAMES = ['webgpu', 'webgl', 'cpu'];
