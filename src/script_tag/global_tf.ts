import {registerKernel} from '@tensorflow/tfjs-core';

// Imported before all else: without a tf, the first op that is made would fail with `op is not a function`.
if (typeof registerKernel !== 'function') {
  throw new Error(
    'tfjs-pbs-attention: found no TensorFlow.js in the global tf; takes a page that loads @tensorflow/tfjs-core or ' +
      '@tensorflow/tfjs by a script tag before this one.',
  );
}
