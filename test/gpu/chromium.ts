import {readFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import {createRequire} from 'node:module';
import type {AddressInfo} from 'node:net';
import {join} from 'node:path';
import type {Browser} from 'playwright-core';
import {findChromium, gpuFlags, softwareFlags} from '../../hosts/chromium';

/**
 * Runs the browser tests in Chromium on this machine's GPU, in the repository's root, from the files that
 * `test/gpu/bundle.ts` has made: on a GPU host without node_modules too. `TEST_GREP` selects tests by name, `--software`
 * takes a software adapter.
 */
interface Outcome {
  passed: number;
  failures: string[];
  /** The GPU process went down before the first test: on some machines its first WebGL context is lost at once. */
  lostAtOnce: boolean;
}

declare global {
  interface Window {
    runTests: (grep: string) => Promise<Outcome>;
  }
}

const files: Record<string, [string, string]> = {
  '/mocha.js': ['text/javascript', 'build/gpu/mocha.js'],
  '/tests.js': ['text/javascript', 'build/gpu/browser-tests.js'],
};

const page = `<!doctype html><meta charset="utf-8"><script src="/mocha.js"></script><script>
mocha.setup({ui: 'bdd', timeout: 120000, reporter: function () {}});
window.runTests = (grep) => new Promise((resolve) => {
  mocha.grep(new RegExp(grep));
  const failures = [];
  const runner = mocha.run(() => resolve({
    passed: runner.stats.passes,
    failures,
    lostAtOnce: runner.stats.passes === 0 && failures.some((text) => text.includes('lost')),
  }));
  runner.on('fail', (test, error) => failures.push(test.fullTitle() + ': ' + error.message));
});
</script><script src="/tests.js"></script>`;

async function runOnce(browser: Browser, url: string): Promise<Outcome> {
  const tab = await browser.newPage();
  const crash = new Promise<never>((_, reject) => {
    tab.on('crash', () => reject(new Error('the page crashed')));
  });
  try {
    await tab.goto(url);
    return await Promise.race([crash, tab.evaluate((grep) => window.runTests(grep), process.env.TEST_GREP ?? '')]);
  } finally {
    await tab.close();
  }
}

const server = createServer((request, response) => {
  const path = new URL(request.url ?? '/', 'http://localhost').pathname;
  if (path === '/') {
    response.writeHead(200, {'content-type': 'text/html'}).end(page);
    return;
  }
  const [type, file] = files[path] ?? ['application/octet-stream', path.replace(/^\/base\//, '')];
  readFile(file).then(
    (body) => response.writeHead(200, {'content-type': type}).end(body),
    () => response.writeHead(404).end(),
  );
});
await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
// Not an import: a GPU host has playwright-core in a folder of its own, which NODE_PATH names.
const {chromium} = createRequire(join(process.cwd(), 'test'))('playwright-core') as typeof import('playwright-core');
const browser = await chromium.launch({
  executablePath: findChromium(),
  ...(process.argv.includes('--software')
    ? {args: softwareFlags}
    : // Playwright's own flags would turn the graphics processor off.
      {args: gpuFlags, ignoreDefaultArgs: ['--disable-gpu', '--enable-unsafe-swiftshader']}),
});
const url = `http://localhost:${(server.address() as AddressInfo).port}/`;
let outcome = await runOnce(browser, url);
for (let attempt = 0; attempt < 2 && outcome.lostAtOnce; ++attempt) {
  console.log('the first context was lost; once more');
  outcome = await runOnce(browser, url);
}
await browser.close();
outcome.failures.forEach((failure) => console.log(failure));
console.log(`${outcome.passed} passed, ${outcome.failures.length} failed`);
process.exit(outcome.failures.length > 0 || outcome.passed === 0 ? 1 : 0);
