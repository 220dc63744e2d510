import {writeFileSync} from 'node:fs';
import {basename, dirname, resolve} from 'node:path';
import {parseArgs} from 'node:util';
import {rewriteAttention} from '../../src/graph';
import {openDawn} from '../../hosts/dawn';
import {milliseconds, table} from '../table';
import {openWebGPU} from '../webgpu/device';
import {compareGraphs, type GraphComparison} from './compare';
import {readGraphModel} from './graph_model';

const USAGE = `npm run bench:graphs -- [options] PATH/model.json …, or where there is no node_modules: node build/gpu/graphs.mjs …

Graph models before and after rewriteAttention, on WebGPU in Node (Dawn): what was replaced, both times in turns, the largest difference.

  --length N         tokens, where a model takes any (default 128)
  --threshold X      of rewriteAttention (default 1)
  --hidden-below X   its hiddenBelow (default -1e8)
  --seconds S        about how long the timings of a model take, before and after each (default 4)
  --json FILE        the figures
  --help             this text

VK_DRIVER_FILES names the Vulkan driver, DAWN another dawn.node.`;

const text = {type: 'string'} as const;

interface GraphRow extends GraphComparison {
  model: string;
  replaced: number;
  left: number;
}

async function main(): Promise<void> {
  const {values, positionals} = parseArgs({
    options: {length: text, threshold: text, 'hidden-below': text, seconds: text, json: text, help: {type: 'boolean'}},
    allowPositionals: true,
  });
  if (values.help || positionals.length === 0) {
    console.log(USAGE);
    return;
  }
  const number = (name: 'length' | 'threshold' | 'hidden-below' | 'seconds', byDefault: number) => {
    const value = Number(values[name] ?? byDefault);
    if (Number.isNaN(value)) throw new Error(`--${name} is "${values[name]}"; accepted: a number`);
    return value;
  };
  const options = {threshold: number('threshold', 1), hiddenBelow: number('hidden-below', -1e8)};
  openDawn();
  const {timer, about, errors} = await openWebGPU([]);
  console.log(`${about.adapter}, Node ${process.version} with Dawn, ${new Date().toISOString().slice(0, 16)}Z\n`);
  const rows: GraphRow[] = [];
  for (const path of positionals) {
    const artifacts = await readGraphModel(path);
    const {modelArtifacts, replaced, left} = rewriteAttention(artifacts, options);
    for (const {softmax, reason} of left) console.log(`${path}: left ${softmax}: ${reason}`);
    const compared = await compareGraphs(
      timer,
      [artifacts, modelArtifacts],
      number('length', 128),
      number('seconds', 4),
    );
    if (errors.length > 0) throw new Error(`device: ${errors.join('\n')}`);
    rows.push({model: basename(dirname(resolve(path))), replaced: replaced.length, left: left.length, ...compared});
    console.error(
      `${path}: ${compared.before.median.toFixed(2)} ms before, ${compared.after.median.toFixed(2)} ms after`,
    );
    if (values.json)
      writeFileSync(values.json, `${JSON.stringify({adapter: about.adapter, date: new Date(), rows}, undefined, 1)}\n`);
  }
  console.log(tableOf(rows));
}

function tableOf(rows: readonly GraphRow[]): string {
  const head = [
    'model',
    'inputs',
    'replaced',
    'left',
    'before, ms',
    'after, ms',
    'times as fast',
    'largest difference',
    'of at most',
  ];
  return table(
    head,
    rows.map(({model, inputs, replaced, left, before, after, difference, magnitude}) => [
      ...[model, inputs, String(replaced), String(left), milliseconds(before), milliseconds(after)],
      (before.median / after.median).toFixed(2),
      difference.toExponential(1),
      magnitude.toPrecision(3),
    ]),
  );
}

try {
  await main();
  // Dawn keeps the process alive.
  process.exit(0);
} catch (error) {
  console.error(`bench:graphs: ${(error as Error).message}`);
  process.exit(1);
}
