import {fileURLToPath} from 'node:url';
import {Worker} from 'node:worker_threads';
import karma from 'karma';
import Mocha from 'mocha';
import {bundleLayersTests} from './layers/bundle';
import {OP_FOLDERS, testFiles} from './setup/test_files';

/**
 * `npm test`: mocha in Node for what needs no browser, tfjs-layers by itself, the package as its users install it, karma in
 * headless Chromium, the demo's page there, and one line that adds up all. `TEST_GREP` selects tests by name;
 * `npm test -- node`, `layers`, `package`, `browser` or `demo` runs one of them; `TEST_TIMES=1` prints what takes longest in
 * the browser.
 */
interface Counts {
  passed: number;
  failed: number;
}

const root = new URL('..', import.meta.url);

const NODE_FILES = ['test/webgpu.node.test.ts'].concat(
  [...OP_FOLDERS, 'demo/llama', 'demo/page', 'graph', 'examples', 'experiments'].flatMap((folder) =>
    testFiles(folder, 'node'),
  ),
);

async function runMocha(files: string[], reporter: string): Promise<Counts> {
  const mocha = new Mocha({timeout: 60_000, grep: process.env.TEST_GREP, reporter});
  mocha.addFile(fileURLToPath(new URL('test/setup/node.ts', root)));
  files.forEach((file) => mocha.addFile(fileURLToPath(new URL(file, root))));
  await mocha.loadFilesAsync();
  return new Promise((resolve) => {
    const runner = mocha.run((failed) => resolve({passed: runner.stats!.passes, failed}));
  });
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
  '(the demo checkpoint|stages against|random shapes|forms of attention|device limits|a run with both).*webgpu';
const SHARDS = [`/${LONG}/i`, `/^(?!.*${LONG})/i`];

async function runInBrowser(): Promise<Counts> {
  const seconds = new Map<string, number>();
  const configs = [];
  for (const grep of process.env.TEST_GREP ? [process.env.TEST_GREP] : SHARDS) {
    configs.push(await browserConfig(grep));
  }
  const counts = await Promise.all(configs.map((config) => runKarma(config, seconds)));
  if (process.env.TEST_TIMES) {
    [...seconds].sort((a, b) => b[1] - a[1]).forEach(([suite, s]) => console.log(`${s.toFixed(0)} s  ${suite}`));
  }
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
        seconds.set(suite[0], (seconds.get(suite[0]) ?? 0) + time / 1000);
      }) as never,
    );
    server.on('run_complete', (_browsers, {success, failed}) => Object.assign(counts, {passed: success, failed}));
    void server.start();
  });
}

const places: Record<string, () => Promise<Counts>> = {
  node: () => runMocha(NODE_FILES, 'dot'),
  layers: runLayers,
  package: () => runMocha(testFiles('package', 'node'), 'spec'),
  browser: runInBrowser,
  demo: () => runMocha(testFiles('demo/browser', 'node'), 'spec'),
};
const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !(name in places));
if (unknown) {
  console.error(`npm test: got '${unknown}'; takes ${Object.keys(places).join(', ')} or nothing for all.`);
  process.exit(1);
}
const total: Counts = {passed: 0, failed: 0};
for (const name of wanted.length > 0 ? wanted : Object.keys(places)) {
  const {passed, failed} = await places[name]();
  total.passed += passed;
  total.failed += failed;
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed > 0 || total.passed === 0 ? 1 : 0);
