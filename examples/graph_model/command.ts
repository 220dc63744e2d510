import {readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {parseArgs} from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import {loadGraphModel} from '@tensorflow/tfjs-converter';
import {type BackendName, BACKENDS, openDevice} from '../../experiments/device';
import {rewriteAttention} from '../../src/graph';

/**
 * `npm run example:graph`: a graph model before and after `rewriteAttention`, with what it replaced, what it left and why, and the times of
 * both; in the repository's root.
 */
const RUNS = 5;

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
const {adapter, errors} = await openDevice(backend);

const json = JSON.parse(readFileSync(path, 'utf8')) as tf.io.ModelJSON;
const artifacts = await tf.io.getModelArtifactsForJSON(json, (manifest) => {
  const files = manifest.flatMap(({paths}) => paths.map((name) => readFileSync(join(dirname(path), name))));
  const specs = manifest.flatMap(({weights}) => weights);
  return Promise.resolve([specs, Uint8Array.from(Buffer.concat(files)).buffer]);
});
const {modelArtifacts, replaced, left} = rewriteAttention(artifacts, {
  threshold: Number(values.threshold),
  hiddenBelow: Number(values.hiddenBelow),
});
for (const {softmax, causal, masks} of replaced) {
  console.log(`replaced: ${softmax}${causal ? ', causal' : ''}${masks.length > 0 ? `, mask ${masks.join()}` : ''}`);
}
for (const {softmax, reason} of left) console.log(`left: ${softmax}: ${reason}`);

/** Median time of a run in milliseconds, and the first output. */
async function timed(model: tf.io.ModelArtifacts): Promise<{milliseconds: number; output: ArrayLike<number>}> {
  const graph = await loadGraphModel(tf.io.fromMemory(model));
  // Whatever the inputs are: a batch of 1, and `length` where the model takes any.
  const feeds = Object.fromEntries(
    graph.inputs.map(({name, shape = [], dtype}) => {
      const sizes = shape.map((size, axis) => (size >= 0 ? size : axis === 0 ? 1 : length));
      const numbers = dtype === 'float32' ? tf.randomNormal(sizes, 0, 1, 'float32', 1) : tf.ones(sizes, dtype);
      return [name, dtype === 'int32' ? tf.randomUniform(sizes, 1, 60, 'int32', 1) : numbers];
    }),
  );
  const times: number[] = [];
  let output: ArrayLike<number> = [];
  for (let run = 0; run <= RUNS; ++run) {
    const start = performance.now();
    const result = graph.execute(feeds);
    const [first] = Array.isArray(result) ? result : [result];
    output = await first.data<'float32'>();
    times.push(performance.now() - start);
    tf.dispose(result);
  }
  // The first run compiles programs.
  return {milliseconds: times.slice(1).sort((a, b) => a - b)[Math.floor(RUNS / 2)], output};
}

const [before, after] = [await timed(artifacts), await timed(modelArtifacts)];
const difference = Array.from(before.output).reduce((most, x, i) => Math.max(most, Math.abs(x - after.output[i])), 0);
console.log(`${adapter}: ${before.milliseconds.toFixed(1)} ms before, ${after.milliseconds.toFixed(1)} ms after`);
console.log(`largest difference of the output: ${difference.toPrecision(2)}`);
if (errors.length > 0) throw new Error(`The device reported: ${errors[0]}`);
