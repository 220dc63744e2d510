import {parseArgs} from 'node:util';
import type * as tf from '@tensorflow/tfjs-core';
import {compareGraphs} from '../../bench/graphs/compare';
import {readGraphModel} from '../../bench/graphs/graph_model';
import {type BackendName, BACKENDS, openDevice} from '../../experiments/device';
import {rewriteAttention} from '../../src/graph';

/**
 * `npm run example:graph`: a graph model before and after `rewriteAttention`, with what it replaced, what it left and why, and the times of
 * both; in the repository's root.
 */
const SECONDS = 2;

const {values, positionals} = parseArgs({
  options: {
    backend: {type: 'string', default: 'cpu'},
    length: {type: 'string', default: '128'},
    threshold: {type: 'string', default: '1'},
    hiddenBelow: {type: 'string', default: '-1e8'},
  },
  allowPositionals: true,
});
const [path = 'examples/graph_model/model/model.json'] = positionals;
const backend = BACKENDS.find((name) => name === values.backend) as BackendName | undefined;
const length = Number(values.length);
if (!backend || !Number.isSafeInteger(length) || length < 1) {
  console.error(`npm run example:graph: takes --backend ${BACKENDS.join(' or ')} and --length, a positive integer.`);
  process.exit(1);
}
const {adapter, errors, timer} = await openDevice(backend);

const artifacts = await readGraphModel(path);
const {modelArtifacts, replaced, left} = rewriteAttention(artifacts, {
  threshold: Number(values.threshold),
  hiddenBelow: Number(values.hiddenBelow),
});
for (const {softmax, causal, masks} of replaced) {
  console.log(`replaced: ${softmax}${causal ? ', causal' : ''}${masks.length > 0 ? `, mask ${masks.join()}` : ''}`);
}
for (const {softmax, reason} of left) console.log(`left: ${softmax}: ${reason}`);

const clock = timer ?? {shortestMs: 0, warmUpMs: 0, finish: async (last: tf.Tensor) => void (await last.data())};
const {inputs, before, after, difference} = await compareGraphs(clock, [artifacts, modelArtifacts], length, SECONDS);
console.log(`${adapter}, inputs ${inputs}: ${before.median.toFixed(1)} ms before, ${after.median.toFixed(1)} ms after`);
console.log(`largest difference of an output: ${difference.toPrecision(2)}`);
if (errors.length > 0) throw new Error(`The device reported: ${errors[0]}`);
// Dawn keeps the process alive.
process.exit(0);
