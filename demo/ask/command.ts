import {mkdtempSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {chromium, type LaunchOptions} from 'playwright-core';
import {build, preview} from 'vite';
import {findChromium, gpuFlags, softwareFlags} from '../../hosts/chromium';
import {BACKEND_NAMES, isBackendName} from '../backend_names';
import type {ChatRequest, ChatResult} from './chat';
import {filesOfModel, placeOfModel, type ModelPlace} from './model_files';
import type {AskInBrowserRequest, AskResult} from './window';

const USAGE = `npm run ask -- [options]
Hides a fact in a book, asks for it with exact and with PBS attention, prints one JSON object. With --model: answers a prompt.

  --length N       tokens in the prompt, 128 to 16384 (default 512)
  --depth X        where the fact goes, 0 (beginning) to 1 (end) (default 0.5)
  --seed N         chooses passage and fact, an integer from 0 (default 1)
  --threshold X    how much PBS keeps, 0 (least) to 1 (exact attention) (default 0.9)

  --model MODEL    a model of your own: a .gguf file; a folder in Hugging Face's form; the address of a .gguf file; or
                   owner/name, owner/name@revision or owner/name/file.gguf on a hub
  --hub URL        the hub of such names (default https://huggingface.co)
  --cache DIR      where downloaded models are kept (default ~/.cache/tfjs-pbs-attention)
  --prompt TEXT    what is asked, in the model's form of a chat (default: a greeting)
  --system TEXT    what the model is told before (default: what its form of a chat says)
  --document FILE  a text before the prompt
  --max-tokens N   most tokens of the answer (default 256)
  --attention A    exact or pbs (default exact)
  --temperature T  0 (the most likely token, default) or more

  --backend NAME   webgpu, webgl or cpu (default: the fastest that works)
  --gpu            on the machine's graphics processor (default: a software adapter, the same everywhere)
  --help           this text

Runs in Chrome or Chromium: CHROME_BIN, or one on the PATH. INSTALL_BROWSER=1 installs Debian's, as root, where there is none.`;

interface Command {
  /** What is asked on the page: of the built-in model, or of one whose files the page gets. */
  asked: {needle: AskInBrowserRequest} | {chat: ChatRequest; model: ModelPlace; cache?: string};
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
      model: text,
      hub: text,
      cache: text,
      prompt: text,
      system: text,
      document: text,
      'max-tokens': text,
      attention: text,
      temperature: text,
      gpu: {type: 'boolean'},
      help: {type: 'boolean'},
    },
  });
  if (values.help) return 'help';
  const {backend} = values;
  if (backend !== undefined && !isBackendName(backend)) {
    throw new Error(`--backend is "${backend}"; accepted: ${BACKEND_NAMES.join(', ')}`);
  }
  const {attention = 'exact', temperature = '0', model} = values;
  const options = values.gpu ? onGpu : onSoftware;
  if (model !== undefined) {
    if (attention !== 'exact' && attention !== 'pbs') {
      throw new Error(`--attention is "${attention}"; accepted: exact, pbs`);
    }
    const chat: ChatRequest = {
      backend,
      attention,
      prompt: values.prompt ?? 'Hello',
      system: values.system,
      document: values.document === undefined ? undefined : readFileSync(values.document, 'utf8'),
      maxTokens: integer('--max-tokens', values['max-tokens'] ?? '256', 1, 32_768),
      temperature: number('--temperature', temperature, 0, 100),
    };
    return {asked: {chat, model: placeOfModel(model, values.hub), cache: values.cache}, chromium: options};
  }
  const needle = {
    length: integer('--length', values.length ?? '512', 128, 16_384),
    depth: number('--depth', values.depth ?? '0.5', 0, 1),
    seed: integer('--seed', values.seed ?? '1', 0, 2 ** 32 - 1),
  };
  const threshold = number('--threshold', values.threshold ?? '0.9', 0, 1);
  return {asked: {needle: {backend, needle, options: {threshold}}}, chromium: options};
}

function integer(name: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) {
    throw new Error(`${name} is "${text}"; accepted: an integer from ${least} to ${most}`);
  }
  return value;
}

function number(name: string, text: string, least: number, most: number): number {
  const value = text.trim() === '' ? NaN : Number(text);
  if (!(value >= least && value <= most)) {
    throw new Error(`${name} is "${text}"; accepted: a number from ${least} to ${most}`);
  }
  return value;
}

/** Builds and serves the demo on a free port, and asks in a headless browser. */
async function askInChromium(command: Command): Promise<AskResult | ChatResult> {
  // First, so that a machine without a browser says so at once.
  const executablePath = findChromium();
  const files = 'model' in command.asked ? await filesOfModel(command.asked.model, command.asked.cache) : [];
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
      return await askAt(new URL('ask/', server.resolvedUrls!.local[0]), executablePath, files, command);
    } finally {
      await server.close();
    }
  } finally {
    rmSync(outDir, {recursive: true, force: true});
  }
}

async function askAt(
  address: URL,
  executablePath: string,
  files: string[],
  {asked, chromium: options}: Command,
): Promise<AskResult | ChatResult> {
  const browser = await chromium.launch({executablePath, ...options});
  try {
    const page = await browser.newPage();
    page.on('console', (message) => console.error(message.text()));
    const crashed = new Promise<never>((_, reject) => {
      page.on('crash', () => reject(new Error('the browser page crashed: is there enough memory?')));
      page.on('pageerror', reject);
    });
    const run = async () => {
      await page.goto(address.href);
      if ('chat' in asked) await page.setInputFiles('input', files);
      // As a value, because an exception would arrive with the browser's stack in its message.
      return page.evaluate((given) => {
        const answer = 'chat' in given ? window.chatInBrowser(given.chat) : window.askInBrowser(given.needle);
        return (answer as Promise<AskResult | ChatResult>).then(
          (result) => ({result}),
          (error: Error) => ({failure: error.message}),
        );
      }, asked);
    };
    const outcome = await Promise.race([run(), crashed]);
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
