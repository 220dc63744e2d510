import {existsSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {createServer, type Server} from 'node:http';
import {createRequire} from 'node:module';
import type {AddressInfo} from 'node:net';
import {join} from 'node:path';
import type {Browser, Page} from 'playwright-core';
import {findChromium, gpuFlags, softwareFlags} from '../../hosts/chromium';
import type {Place} from '../cases/case_runner';
import type {BackendName, Command} from '../options';
import type {PageRequest} from './page';

/** The page's script where a GPU host finds it, made beforehand by `bench/pack.ts`. */
export const PAGE_SCRIPT = 'build/gpu/bench-page.js';

/** As in Node: without it NVIDIA's Vulkan driver offers no f16. */
const DAWN_TOGGLES = '--enable-dawn-features=vulkan_enable_f16_on_nvidia';

/** A browser that lost a context refuses new ones to the same site, which is how a retry would end. */
const AFTER_LOSS = '--disable-domain-blocking-for-3d-apis';

/** Runs the cases in headless Chromium, on its GPU unless software is asked for. */
export async function runInBrowser({cases, backend, software}: Command, place: Place, command: string): Promise<void> {
  // Not an import: a GPU host has playwright-core in a folder of its own, which NODE_PATH names.
  const load = createRequire(join(process.cwd(), 'bench'));
  const {chromium} = load('playwright-core') as typeof import('playwright-core');
  const script = await pageScript();
  const server = await serve(script);
  const browser = await chromium.launch({
    executablePath: findChromium(),
    // Playwright's own flags would turn the graphics processor off.
    ...(software
      ? {args: [...softwareFlags, AFTER_LOSS]}
      : {
          args: [...gpuFlags, DAWN_TOGGLES, AFTER_LOSS],
          ignoreDefaultArgs: ['--disable-gpu', '--enable-unsafe-swiftshader'],
        }),
  });
  try {
    const {port} = server.address() as AddressInfo;
    const page = await openPage(browser, `http://localhost:${port}/`, {backend, without: cases.without}, place);
    const request: PageRequest = {
      options: cases,
      about: {command, host: `Chromium ${browser.version()}`, versions: {node: process.version}},
    };
    const crashed = new Promise<never>((_, reject) => {
      page.on('crash', () => reject(new Error('the browser page crashed: is there enough memory?')));
    });
    await Promise.race([page.evaluate((given) => window.runBench(given), request), crashed]);
  } finally {
    await browser.close();
    server.close();
  }
}

/** How often a page is opened anew when its backend does not work. */
const RETRIES = 3;

/**
 * Opens the page and its backend. The first WebGL context of a browser can be lost at once, while the GPU process
 * starts; a new page in the same browser gets one that lasts.
 */
async function openPage(
  browser: Browser,
  address: string,
  wanted: {backend: BackendName; without: string[]},
  place: Place,
  retries = RETRIES,
): Promise<Page> {
  const page = await browser.newPage();
  page.on('pageerror', (error) => place.log(`page: ${error.message}`));
  await page.exposeFunction('benchLog', place.log);
  await page.exposeFunction('benchSave', place.save);
  await page.goto(address);
  const fault = await page.evaluate(({backend, without}) => window.openDevice(backend, without), wanted);
  if (fault === undefined) return page;
  await page.close();
  const {backend} = wanted;
  if (retries === 0) throw new Error(`${backend} does not work in this browser: ${fault}`);
  place.log(`${backend} failed at the first warm-up (${fault}): opening the page anew, ${retries} retries left`);
  await new Promise((resolve) => setTimeout(resolve, 500));
  return openPage(browser, address, wanted, place, retries - 1);
}

/** Bundles the page's script, or takes the packed one where there is no bundler. */
async function pageScript(): Promise<string> {
  if (existsSync('bench/bundle.ts') && existsSync('node_modules/esbuild')) {
    const {bundlePage} = await import('../bundle');
    return bundlePage();
  }
  return readFile(PAGE_SCRIPT, 'utf8');
}

async function serve(script: string): Promise<Server> {
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://localhost').pathname;
    const send = (type: string, body: string | Uint8Array) => {
      // Isolated, the page's clock has steps of 5 µs instead of 100: time of draws in WebGL is taken with it.
      response.writeHead(200, {
        'content-type': type,
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-embedder-policy': 'require-corp',
      });
      response.end(body);
    };
    if (path === '/') {
      send('text/html', '<!doctype html><meta charset="utf-8"><script src="/bench-page.js"></script>');
    } else if (path === '/bench-page.js') {
      send('text/javascript', script);
    } else if (path.startsWith('/demo/public/') && !path.includes('..')) {
      readFile(path.slice(1)).then(
        (body) => send('application/octet-stream', body),
        () => response.writeHead(404).end(),
      );
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  return server;
}
