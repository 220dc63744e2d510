import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {chromium, type LaunchOptions} from 'playwright-core';
import {build, preview} from 'vite';
import {findChromium, gpuFlags, softwareFlags} from '../../hosts/chromium';
import {BACKEND_NAMES, isBackendName} from '../backend_names';

import type {AskInBrowserRequest, AskResult} from './window';

const USAGE = `npm run ask -- [options]
Hides a fact in a book, asks for it with exact and with PBS attention, prints one JSON object.

  --length N       tokens in the prompt, 128 to 16384 (default 512)
  --backend NAME   webgpu, webgl or cpu (default: the fastest that works)
  --depth X        where the fact goes, 0 (beginning) to 1 (end) (default 0.5)
  --seed N         chooses passage and fact, an integer from 0 (default 1)
  --threshold X    how much PBS keeps, 0 (least) to 1 (exact attention) (default 0.9)
  --gpu            on the machine's graphics processor (default: a software adapter, the same everywhere)
  --help           this text

Runs in Chrome or Chromium: CHROME_BIN, or one on the PATH. INSTALL_BROWSER=1 installs Debian's, as root, where there is none.`;

interface Command {
  request: AskInBrowserRequest;
  chromium: Pick<LaunchOptions, 'args' | 'ignoreDefaultArgs'>;
}

const onSoftware = {args: softwareFlags};

/** Playwright's own flags would turn the graphics processor off. */
const onGpu = {args: gpuFlags, ignoreDefaultArgs: ['--disable-gpu', '--enable-unsafe-swiftshader']};

/** Reads the arguments; the error of a bad one says which and what is accepted. */
function parseCommand(args: string[]): Command | 'help' {
  const text = {type: 'string'} as const;
  const {values} = parseArgs({
    args,
    options: {
      length: text,
      backend: text,
      depth: text,
      seed: text,
      threshold: text,
      gpu: {type: 'boolean'},
      help: {type: 'boolean'},
    },
  });
  if (values.help) return 'help';
  if (values.backend !== undefined && !isBackendName(values.backend)) {
    throw new Error(`--backend is "${values.backend}"; accepted: ${BACKEND_NAMES.join(', ')}`);
  }
  const request = {
    backend: values.backend,
    needle: {
      length: integer('--length', values.length ?? '512', 128, 16_384),
      depth: share('--depth', values.depth ?? '0.5'),
      seed: integer('--seed', values.seed ?? '1', 0, 2 ** 32 - 1),
    },
    options: {threshold: share('--threshold', values.threshold ?? '0.9')},
  };
  return {request, chromium: values.gpu ? onGpu : onSoftware};
}

function integer(name: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) {
    throw new Error(`${name} is "${text}"; accepted: an integer from ${least} to ${most}`);
  }
  return value;
}

function share(name: string, text: string): number {
  const value = text.trim() === '' ? NaN : Number(text);
  if (!(value >= 0 && value <= 1)) throw new Error(`${name} is "${text}"; accepted: a number from 0 to 1`);
  return value;
}

/** Builds and serves the demo on a free port, and asks in a headless browser. */
async function askInChromium(command: Command): Promise<AskResult> {
  // First, so that a machine without a browser says so at once.
  const executablePath = findChromium();
  // A folder of its own: `npm start` may be serving the usual one.
  const outDir = mkdtempSync(join(tmpdir(), 'pbs-ask-'));
  const config = {
    root: fileURLToPath(new URL('..', import.meta.url)),
    logLevel: 'error',
    build: {outDir},
    preview: {port: 0, host: '127.0.0.1'},
  } as const;
  try {
    await build(config);
    const server = await preview(config);
    try {
      return await askAt(new URL('ask/', server.resolvedUrls!.local[0]), executablePath, command);
    } finally {
      await server.close();
    }
  } finally {
    rmSync(outDir, {recursive: true, force: true});
  }
}

async function askAt(address: URL, executablePath: string, {request, chromium: options}: Command): Promise<AskResult> {
  const browser = await chromium.launch({executablePath, ...options});
  try {
    const page = await browser.newPage();
    page.on('console', (message) => console.error(message.text()));
    const crashed = new Promise<never>((_, reject) => {
      page.on('crash', () => reject(new Error('the browser page crashed: is there enough memory?')));
      page.on('pageerror', reject);
    });
    const asked = async () => {
      await page.goto(address.href);
      // As a value, because an exception would arrive with the browser's stack in its message.
      return page.evaluate(
        (given) =>
          window.askInBrowser(given).then(
            (result) => ({result}),
            (error: Error) => ({failure: error.message}),
          ),
        request,
      );
    };
    const outcome = await Promise.race([asked(), crashed]);
    if ('failure' in outcome) throw new Error(outcome.failure);
    return outcome.result;
  } finally {
    await browser.close();
  }
}

try {
  const command = parseCommand(process.argv.slice(2));
  console.log(command === 'help' ? USAGE : JSON.stringify(await askInChromium(command)));
} catch (error) {
  console.error(`ask: ${(error as Error).message}`);
  process.exitCode = 1;
}
