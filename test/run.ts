import {fileURLToPath} from 'node:url';
import {Worker} from 'node:worker_threads';
import karma from 'karma';
import Mocha from 'mocha';
import {bundleLayersTests} from './layers/bundle';
import {findChromium} from '../hosts/chromium';
import {OP_FOLDERS, testFiles} from './setup/test_files';

/**
 * `npm test`: mocha in Node for what needs no browser, tfjs-layers by itself, the package as its users install it, karma in
 * headless Chromium, the demo's page there, and one line that adds up all. `npm test -- node`, `layers`, `package`, `browser`
 * or `demo` runs one of them, `quick` the short part of `node`. `TEST_GREP` selects tests by name; `TEST_TIMES=1` prints how
 * long each suite took.
 */
interface Counts {
  passed: number;
  failed: number;
}

const root = new URL('..', import.meta.url);

const NODE_FILES = ['test/webgpu.node.test.ts'].concat(
  [
    ...OP_FOLDERS,
    'runner',
    'demo/ask',
    'demo/engine',
    'demo/page',
    'graph',
    'examples',
    'bench',
    'experiments',
    'fuzz',
  ].flatMap((folder) => testFiles(folder, 'node')),
);

/** Suites of `node` that take two thirds of its time: whole runs of the demo, the tuner and the experiments on its model, fuzzing. */
const SLOW =
  '(real, end to end|experiments, end to end|a run with both ways of attending|tuner on the model of the demo|hostile input, made by chance) ';

async function runMocha(files: string[], reporter: string, grep = process.env.TEST_GREP): Promise<Counts> {
  const mocha = new Mocha({timeout: 60_000, grep, reporter});
  ['test/setup/node.ts', 'test/setup/wasm.ts'].forEach((file) => mocha.addFile(fileURLToPath(new URL(file, root))));
  files.forEach((file) => mocha.addFile(fileURLToPath(new URL(file, root))));
  await mocha.loadFilesAsync();
  const seconds = new Map<string, number>();
  const counts = await new Promise<Counts>((resolve) => {
    const runner = mocha.run((failed) => resolve({passed: runner.stats!.passes, failed}));
    let last = performance.now();
    // From the end of a test to that of the next, so that hooks count too.
    runner.on('test end', (test) => {
      const now = performance.now();
      addTime(seconds, test.titlePath()[0], now - last);
      last = now;
    });
  });
  printTimes(seconds);
  return counts;
}

function addTime(seconds: Map<string, number>, suite: string, milliseconds: number): void {
  seconds.set(suite, (seconds.get(suite) ?? 0) + milliseconds / 1000);
}

function printTimes(seconds: Map<string, number>): void {
  if (!process.env.TEST_TIMES) return;
  [...seconds].sort((a, b) => b[1] - a[1]).forEach(([suite, s]) => console.log(`${s.toFixed(1)} s  ${suite}`));
}

/** In a worker, because the bundle brings a tfjs-core of its own, which would register every kernel again. */
async function runLayers(): Promise<Counts> {
  const bundle = new URL('build/test/layers.mjs', root);
  await bundleLayersTests(fileURLToPath(bundle));
  const worker = new Worker(bundle);
  let counts: Counts = {passed: 0, failed: 1};
  worker.on('message', (message: Counts) => (counts = message));
  // What it prints arrives before it exits, not before its message.
  return new Promise((resolve, reject) => {
    worker.once('error', reject).once('exit', () => resolve(counts));
  });
}

/**
 * Two browsers side by side, since compiling shaders in software keeps one core busy and no other: the suites that take longest
 * on WebGPU, about half of the time of all, and the others.
 */
const LONG =
  '(the demo checkpoint|attention on matrix units|failures of the device|forms of scores|stages against|random shapes|forms of attention|device limits|a run with both|the authors|exact attention).*webgpu';
const SHARDS = [`/${LONG}/i`, `/^(?!.*${LONG})/i`];

async function runInBrowser(): Promise<Counts> {
  const seconds = new Map<string, number>();
  const configs = [];
  for (const grep of process.env.TEST_GREP ? [process.env.TEST_GREP] : SHARDS) {
    configs.push(await browserConfig(grep));
  }
  const counts = await Promise.all(configs.map((config) => runKarma(config, seconds)));
  printTimes(seconds);
  return counts.reduce((sum, {passed, failed}) => ({passed: sum.passed + passed, failed: sum.failed + failed}));
}

const browserConfig = (grep: string) =>
  karma.config.parseConfig(
    fileURLToPath(new URL('karma.conf.js', root)),
    {client: {mocha: {timeout: 120_000, grep}}} as karma.ConfigOptions,
    {promiseConfig: true, throwErrors: true},
  );

/** @param seconds told what each suite has taken. */
function runKarma(config: karma.Config, seconds: Map<string, number>): Promise<Counts> {
  return new Promise((resolve) => {
    const counts: Counts = {passed: 0, failed: 0};
    const server = new karma.Server(config, (exitCode) => {
      // A browser that never came up, or broke off, has reported no failed test.
      const brokeOff = exitCode !== 0 && counts.failed === 0;
      resolve(brokeOff ? {...counts, failed: 1} : counts);
    });
    server.on(
      'spec_complete' as 'run_complete',
      ((_browser: unknown, {suite, time}: {suite: string[]; time: number}) => {
        addTime(seconds, suite[0], time);
      }) as never,
    );
    server.on('run_complete', (_browsers, {success, failed}) => Object.assign(counts, {passed: success, failed}));
    void server.start();
  });
}

interface Place {
  what: string;
  /** About what it takes on two cores, without `TEST_GREP`. */
  minutes: number;
  needsBrowser: boolean;
  run(): Promise<Counts>;
}

const places: Record<string, Place> = {
  node: {
    what: 'all that needs no browser, in Node on the CPU backend',
    minutes: 3,
    needsBrowser: false,
    run: () => runMocha(NODE_FILES, 'dot'),
  },
  layers: {
    what: 'tfjs-layers, in Node on the CPU backend',
    minutes: 0.5,
    needsBrowser: false,
    run: runLayers,
  },
  package: {
    what: 'the package: built, packed, installed into an empty project, used in Node and in Chromium',
    minutes: 1,
    needsBrowser: true,
    run: () => runMocha(testFiles('package', 'node'), 'spec'),
  },
  browser: {
    what: 'WebGPU and WebGL in headless Chromium, in software',
    minutes: 10,
    needsBrowser: true,
    run: runInBrowser,
  },
  demo: {
    what: 'the demo’s page in headless Chromium',
    minutes: 5,
    needsBrowser: true,
    run: () => runMocha(testFiles('demo/browser', 'node'), 'spec'),
  },
};
/** Not in `npm test`, which runs these tests in `node`. */
const quick: Place = {
  what: 'node, without the suites that take longest',
  minutes: 1,
  needsBrowser: false,
  run: () => runMocha(NODE_FILES, 'dot', process.env.TEST_GREP ?? `/^(?!${SLOW})/`),
};

const known: Record<string, Place> = {...places, quick};
const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !(name in known));
if (unknown) {
  console.error(`npm test: got '${unknown}'; takes ${Object.keys(known).join(', ')} or nothing for all.`);
  process.exit(1);
}
const names = wanted.length > 0 ? wanted : Object.keys(places);
const minutes = (count: number) => (count < 1 ? 'under a minute' : `about ${count} min`);

if (process.env.TEST_GREP) {
  console.log(`Runs what is named like ${process.env.TEST_GREP} in: ${names.join(', ')}.`);
} else {
  const sum = names.reduce((total, name) => total + known[name].minutes, 0);
  console.log(`Runs, on two cores in ${minutes(Math.round(sum))}:`);
  names.forEach((name) =>
    console.log(`  ${name.padEnd(8)} ${minutes(known[name].minutes).padEnd(15)} ${known[name].what}`),
  );
}
if (names.some((name) => known[name].needsBrowser)) {
  // First, so that a machine without a browser says so at once, and not after minutes.
  try {
    console.log(`Browser: ${findChromium()}`);
  } catch (error) {
    console.error(`npm test: ${(error as Error).message}\nWithout a browser: npm test -- node layers`);
    process.exit(1);
  }
}

const total: Counts = {passed: 0, failed: 0};
for (const [i, name] of names.entries()) {
  console.log(`\n[${i + 1}/${names.length}] ${name}: ${known[name].what}`);
  const start = performance.now();
  const {passed, failed} = await known[name].run();
  const seconds = Math.round((performance.now() - start) / 1000);
  console.log(`[${i + 1}/${names.length}] ${name}: ${passed} passed, ${failed} failed, ${seconds} s`);
  total.passed += passed;
  total.failed += failed;
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed > 0 || total.passed === 0 ? 1 : 0);
