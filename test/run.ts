import {readdirSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import karma from 'karma';
import Mocha from 'mocha';

/**
 * `npm test`: mocha in Node for what needs no browser, then karma in headless Chromium, and one line that adds up both.
 * `TEST_GREP` selects tests by name; `npm test -- node` or `npm test -- browser` runs one of the two.
 */
interface Counts {
  passed: number;
  failed: number;
}

const root = new URL('..', import.meta.url);

async function runInNode(): Promise<Counts> {
  const mocha = new Mocha({timeout: 60_000, grep: process.env.TEST_GREP, reporter: 'dot'});
  mocha.addFile(fileURLToPath(new URL('test/setup/node.ts', root)));
  for (const folder of ['test/ops', 'test/kernels', 'test/node', 'test/model', 'test/experiments']) {
    for (const file of readdirSync(new URL(folder, root)).filter((name) => name.endsWith('.test.ts'))) {
      mocha.addFile(fileURLToPath(new URL(`${folder}/${file}`, root)));
    }
  }
  await mocha.loadFilesAsync();
  return new Promise((resolve) => {
    const runner = mocha.run((failed) => resolve({passed: runner.stats!.passes, failed}));
  });
}

async function runInBrowser(): Promise<Counts> {
  const config = await karma.config.parseConfig(
    fileURLToPath(new URL('karma.conf.js', root)),
    {},
    {promiseConfig: true, throwErrors: true},
  );
  return new Promise((resolve) => {
    const counts: Counts = {passed: 0, failed: 0};
    const server = new karma.Server(config, (exitCode) => {
      // A browser that never came up, or broke off, has reported no failed test.
      const brokeOff = exitCode !== 0 && counts.failed === 0;
      resolve(brokeOff ? {...counts, failed: 1} : counts);
    });
    server.on('run_complete', (_browsers, {success, failed}) => Object.assign(counts, {passed: success, failed}));
    void server.start();
  });
}

const places: Record<string, () => Promise<Counts>> = {node: runInNode, browser: runInBrowser};
const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !(name in places));
if (unknown) {
  console.error(`npm test: got '${unknown}'; takes ${Object.keys(places).join(', ')} or nothing for both.`);
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
