/** What script tags add to the global `tf`: everything of the entries `.` and `./webgpu`. Bundled by `build.ts`. */
import './global_tf.js';

export * from '../index.js';
export * from '../webgpu.js';
