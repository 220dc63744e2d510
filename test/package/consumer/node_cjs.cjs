const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');
const attention = require('tfjs-pbs-attention');

import('./measure.js')
  .then(({measure}) => measure(tf, attention, ['cpu']))
  .then((results) => console.log(JSON.stringify(results)));
