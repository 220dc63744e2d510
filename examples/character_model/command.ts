import {mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import * as Plot from '@observablehq/plot';
// Registers the gradients of tfjs-core's own ops; a bundled page imports @tensorflow/tfjs-core/dist/register_all_gradients.
import '@tensorflow/tfjs-layers';
import {type BackendName, BACKENDS, openDevice} from '../../experiments/device';
import {draw} from '../../experiments/plots';
import {attentions} from './attentions';
import type {Training} from './train';
import {train} from './train';

/**
 * `npm run example:train`: trains the model of this folder with each attention on one of the demo's books and writes the
 * losses, side by side, to `docs/training`; in the repository's root.
 */
const BOOK = 'demo/public/books/dubliners.txt';
const OUT = 'docs/training';
/** Small blocks, so that 128 characters have 16 of them. */
const SPARSE = {blockSize: 8, segmentSize: 16, threshold: 0.85};
/** Steps over which a point of the picture is a mean. */
const SMOOTHED = 10;

const {values} = parseArgs({
  options: {backend: {type: 'string', default: 'cpu'}, steps: {type: 'string', default: '150'}},
});
const backend = BACKENDS.find((name) => name === values.backend) as BackendName | undefined;
const steps = Number(values.steps);
if (!backend || !Number.isSafeInteger(steps) || steps < 1) {
  console.error(`npm run example:train: takes --backend ${BACKENDS.join(' or ')} and --steps, a positive integer.`);
  process.exit(1);
}

const training: Training = {
  shape: {length: 128, layers: 2, heads: 2, headDim: 16},
  batch: 2,
  steps,
  learningRate: 3e-3,
  seed: 1,
};
const {adapter, errors} = await openDevice(backend);
const text = readFileSync(BOOK, 'utf8');
const losses: Record<string, number[]> = {};
const kept: number[] = [];
for (const [name, attention] of Object.entries(attentions(SPARSE, (share) => kept.push(share)))) {
  losses[name] = await train(text, attention, training, (step, loss) => {
    if (step % SMOOTHED === 0) console.log(`${name}, step ${step}: ${loss.toFixed(3)}`);
  });
}
if (errors.length > 0) {
  throw new Error(`The device reported: ${errors[0]}`);
}
const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const keptShare = mean(kept);
console.log(
  `Sparse attention kept ${(100 * keptShare).toFixed(1)}% of the visible blocks, mean over all layers and steps.`,
);
for (const [name, all] of Object.entries(losses)) {
  const difference = Math.max(...all.map((loss, step) => Math.abs(loss - losses.composed[step])));
  console.log(
    `${name}: mean loss of the last 20 steps ${mean(all.slice(-20)).toFixed(3)}, at most ${difference.toFixed(4)} from composed.`,
  );
}
const run = {
  date: new Date().toISOString().slice(0, 10),
  backend,
  adapter,
  book: BOOK,
  training,
  sparse: SPARSE,
  keptShare,
  losses,
};
const points = Object.entries(losses).flatMap(([attention, all]) =>
  Array.from({length: Math.floor(all.length / SMOOTHED)}, (_, i) => {
    return {attention, step: (i + 0.5) * SMOOTHED, loss: mean(all.slice(i * SMOOTHED, (i + 1) * SMOOTHED))};
  }),
);
mkdirSync(OUT, {recursive: true});
writeFileSync(join(OUT, 'losses.json'), `${JSON.stringify(run, null, 1)}\n`);
const picture = draw('Loss while a character model learns', {
  x: {label: 'step'},
  y: {label: 'nats a character', grid: true},
  color: {legend: true},
  marks: [Plot.lineY(points, {x: 'step', y: 'loss', stroke: 'attention'})],
});
writeFileSync(join(OUT, 'losses.svg'), picture);
