import {fileURLToPath} from 'node:url';
import {Worker} from 'node:worker_threads';
import karma from 'karma';
import Mocha from 'mocha';
import {bundleLayersTests} from './layers/bundle';
import {findChromium} from '../hosts/chromium';
import type {Counts} from './setup/jobs';
import {runJobs} from './setup/jobs';
import {OP_FOLDERS, testFiles} from './setup/test_files';
import {TestTimes} from './setup/test_times';

/**
 * `npm test`: mocha in Node for what needs no browser, tfjs-layers by itself, the package as its users install it, karma in
 * headless Chromium, the demo's page there, and one line that adds up all. `npm test -- node`, `layers`, `package`, `browser`
 * or `demo` runs one of them, `quick` the short part of `node`. `TEST_GREP` selects tests by name; `TEST_TIMES=1` prints how
 * long tests, suites and backends took.
 */
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
  const times = new TestTimes();
  const counts = await new Promise<Counts>((resolve) => {
    const runner = mocha.run((failed) => resolve({passed: runner.stats!.passes, failed}));
    let last = performance.now();
    // From the end of a test to that of the next, so that hooks count too.
    runner.on('test end', (test) => {
      const now = performance.now();
      times.add(test.titlePath(), now - last);
      last = now;
    });
  });
  times.print();
  return counts;
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
 * The suites that take longest on WebGPU, about half of the time of all: compiling shaders in software keeps one core busy and no other,
 * so these and the others run side by side, each in a browser of its own.
 */
const LONG =
  '(the demo checkpoint|attention on matrix units|failures of the device|forms of scores|stages against|random shapes|forms of attention|device limits|the authors|exact attention|tiny checkpoints|gradients against composed).*webgpu';
const SHARDS = {'browser/1': `/${LONG}/i`, 'browser/2': `/^(?!.*${LONG})/i`};

async function runInBrowser(grep = process.env.TEST_GREP): Promise<Counts> {
  const times = new TestTimes();
  const config = await karma.config.parseConfig(
    fileURLToPath(new URL('karma.conf.js', root)),
    {client: {mocha: {timeout: 120_000, grep}}} as karma.ConfigOptions,
    {promiseConfig: true, throwErrors: true},
  );
  const counts = await runKarma(config, times);
  times.print();
  return counts;
}

interface KarmaResult {
  suite: string[];
  description: string;
  startTime: number;
  endTime: number;
}

/** @param times told what each test has taken. */
function runKarma(config: karma.Config, times: TestTimes): Promise<Counts> {
  return new Promise((resolve) => {
    const counts: Counts = {passed: 0, failed: 0};
    const server = new karma.Server(config, (exitCode) => {
      // A browser that never came up, or broke off, has reported no failed test.
      const brokeOff = exitCode !== 0 && counts.failed === 0;
      resolve(brokeOff ? {...counts, failed: 1} : counts);
    });
    let last: number | undefined;
    // As in Node: from the end of a test to that of the next.
    const addTime = (_browser: unknown, {suite, description, startTime, endTime}: KarmaResult) => {
      times.add([...suite, description], endTime - (last ?? startTime));
      last = endTime;
    };
    server.on('spec_complete' as 'run_complete', addTime as never);
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
    minutes: 4,
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
    minutes: 18,
    needsBrowser: true,
    run: () => runInBrowser(),
  },
  demo: {
    what: 'the demo’s page in headless Chromium',
    minutes: 5,
    needsBrowser: true,
    run: () => runMocha(testFiles('demo/browser', 'node'), 'spec'),
  },
};
/** Not in `npm test`, which runs these tests in `node` and `browser`. */
const parts: Record<string, Place> = {
  quick: {
    what: 'node, without the suites that take longest',
    minutes: 1,
    needsBrowser: false,
    run: () => runMocha(NODE_FILES, 'dot', process.env.TEST_GREP ?? `/^(?!${SLOW})/`),
  },
  ...Object.fromEntries(
    Object.entries(SHARDS).map(([name, grep]): [string, Place] => [
      name,
      {...places.browser, what: 'half of browser', run: () => runInBrowser(grep)},
    ]),
  ),
};

const known: Record<string, Place> = {...places, ...parts};
const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !(name in known));
if (unknown) {
  console.error(`npm test: got '${unknown}'; takes ${Object.keys(known).join(', ')} or nothing for all.`);
  process.exit(1);
}
const names = wanted.length > 0 ? wanted : Object.keys(places);

if (!process.send) announce();
const counts = await run();
if (process.send) {
  process.send(counts, () => process.exit());
} else {
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
}

function announce(): void {
  const {TEST_GREP} = process.env;
  console.log(TEST_GREP ? `Runs what is named like ${TEST_GREP} in:` : 'Runs, with what each takes on two cores:');
  for (const name of names) {
    const {minutes, what} = known[name];
    const time = minutes < 1 ? 'under a minute' : `about ${minutes} min`;
    console.log(`  ${name.padEnd(9)} ${TEST_GREP ? '' : time.padEnd(15)} ${what}`);
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
}

/** One part in this process, several in processes of their own: what takes longest first. */
function run(): Promise<Counts> {
  const jobs = names
    .flatMap((name) => (name === 'browser' && !process.env.TEST_GREP ? Object.keys(SHARDS) : [name]))
    .sort((a, b) => known[b].minutes - known[a].minutes);
  const script = fileURLToPath(import.meta.url);
  return jobs.length === 1
    ? known[jobs[0]].run()
    : runJobs(Object.fromEntries(jobs.map((name) => [name, [...process.execArgv, script, name]])));
}
