// Two copies of tfjs-core, which share one engine: tensors are of the class of the first, the package sees the second.
const path = require.resolve('@tensorflow/tfjs-core');
const tf = require(path);
require('@tensorflow/tfjs-backend-cpu');
delete require.cache[path];
const attention = require('tfjs-pbs-attention');
if (require(path) === tf) {
  throw new Error('not two copies');
}

import('./measure.js')
  .then(({measure}) => measure(tf, attention, ['cpu']))
  .then((results) => console.log(JSON.stringify(results)));
