import {createRequire} from 'node:module';
import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import type {Page} from 'playwright-core';
import {findChromium, gpuFlags, softwareFlags} from '../../hosts/chromium';
import {DemoPage} from '../demo/browser/demo_page';
import {DemoServer} from '../demo/browser/demo_server';

/**
 * Asks on the demo's page as a person does, on this machine's GPU, and prints what the page shows: on a GPU host without
 * node_modules, `node build/gpu/demo.mjs`, with build/demo (its model and books may lie in demo/public).
 *
 *   --lengths A,B   tokens (default 2048,4096,8192,16384)
 *   --runs N        runs a length (default 5)
 *   --backend NAME  webgpu or webgl (default webgpu)
 *   --precision P   float32 or float16 (default float32)
 *   --out DIR       where results.json and screenshots of the longest prompt go (default build/gpu)
 *   --software      on a software adapter
 */
const text = {type: 'string'} as const;
const {values} = parseArgs({
  options: {lengths: text, runs: text, backend: text, precision: text, out: text, software: {type: 'boolean'}},
});
const lengths = (values.lengths ?? '2048,4096,8192,16384').split(',').map(Number);
const runs = Number(values.runs ?? 5);
const out = values.out ?? 'build/gpu';

interface Shown {
  length: number;
  status: string;
  exact: string;
  pbs: string;
  speedUp: string;
  kept: string;
}

const RUN_MS = 300_000;

async function ask(demo: DemoPage, length: number): Promise<Shown> {
  await demo.page.selectOption('#length', String(length));
  const status = await demo.ask(RUN_MS);
  const failure = await demo.text('#failure');
  if (failure !== '') throw new Error(`${length} tokens: ${failure}`);
  const [exact, pbs, speedUp, kept] = await Promise.all(
    ['#exact', '#pbs', '#speed-up', '#blocks-kept'].map((selector) => demo.text(selector)),
  );
  return {length, status, exact, pbs, speedUp, kept};
}

/** Counts what keeps the page's main thread from answering. */
async function watchLongTasks(page: Page): Promise<() => Promise<number[]>> {
  await page.evaluate(() => {
    const found: number[] = [];
    Object.assign(window, {longTasks: found});
    new PerformanceObserver((list) => {
      for (const {duration} of list.getEntries()) found.push(Math.round(duration));
    }).observe({type: 'longtask'});
  });
  return () => page.evaluate(() => (window as unknown as {longTasks: number[]}).longTasks);
}

mkdirSync(out, {recursive: true});
const server = await DemoServer.open('build/demo', 'demo/public');
// Not an import: a GPU host has playwright-core in a folder of its own, which NODE_PATH names.
const {chromium} = createRequire(join(process.cwd(), 'test'))('playwright-core') as typeof import('playwright-core');
const browser = await chromium.launch({
  executablePath: findChromium(),
  ...(values.software
    ? {args: softwareFlags}
    : {
        // As in the benchmark: NVIDIA's Vulkan driver offers no f16 otherwise; a lost first context is asked for again.
        args: [
          ...gpuFlags,
          '--enable-dawn-features=vulkan_enable_f16_on_nvidia',
          '--disable-domain-blocking-for-3d-apis',
        ],
        ignoreDefaultArgs: ['--disable-gpu', '--enable-unsafe-swiftshader'],
      }),
});
const settings = new URLSearchParams({backend: values.backend ?? 'webgpu', precision: values.precision ?? 'float32'});
const demo = await DemoPage.open(browser, server, '', String(settings));
const {page} = demo;
await demo.ready();
console.log(await demo.text('#machine'));
const longTasks = await watchLongTasks(page);
const results: Shown[] = [];
for (const length of lengths) {
  for (let run = 0; run < runs; ++run) {
    const shown = await ask(demo, length);
    results.push(shown);
    console.log(JSON.stringify(shown));
  }
}
console.log(`long tasks of the main thread, ms: ${(await longTasks()).join(', ') || 'none'}`);
writeFileSync(`${out}/results.json`, `${JSON.stringify(results, undefined, 1)}\n`);
await page.waitForTimeout(1000);
await page.screenshot({path: `${out}/demo.png`, fullPage: true});
await page.emulateMedia({colorScheme: 'dark'});
await page.waitForTimeout(1000);
await page.screenshot({path: `${out}/demo-dark.png`, fullPage: true});
await page.emulateMedia({colorScheme: 'light'});
await page.setViewportSize({width: 360, height: 800});
await page.waitForTimeout(1000);
await page.screenshot({path: `${out}/demo-phone.png`, fullPage: true});
await demo.close();
await browser.close();
server.close();
