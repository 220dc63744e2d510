import {createRequire} from 'node:module';
import {mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import {parseArgs} from 'node:util';
import {findChromium, gpuFlags, softwareFlags} from '../../hosts/chromium';
import {DemoPage} from '../demo/browser/demo_page';
import {DemoServer} from '../demo/browser/demo_server';
import {timeOnnxRuntimeWeb} from './onnx_web';

/**
 * Chats with real models on the demo's page as a person does, on this machine's GPU, and prints what the page shows: on a GPU host without
 * node_modules, `node build/gpu/chat.mjs`, with build/demo (its model and books may lie in demo/public). A host without fonts needs some, and
 * `FONTCONFIG_FILE`: Chromium ends where it finds none.
 *
 *   --model FILE       a .gguf; may be given again
 *   --document FILE    default demo/public/books/dubliners.txt
 *   --tokens A,B       about so many tokens of it are read (default 8192)
 *   --repeats N        times that a question is asked of a document by exact and by sparse attention alone, read anew each time (default 3): the first compiles
 *   --question TEXT    asked of each, side by side; then "Which places are named?"
 *   --float16          with the flags by which Chromium offers float16 and matrix units on NVIDIA's driver
 *   --onnx FOLDER      onnxruntime-web (dist/ort.webgpu.bundle.min.mjs and its .wasm) with a decoder's model.onnx and info.json beside it:
 *                      times its prefill in the same browser
 *   --out DIR          where chat.json and screenshots go (default build/gpu)
 *   --software         on a software adapter
 */
const text = {type: 'string'} as const;
const {values} = parseArgs({
  options: {
    ...{
      model: {...text, multiple: true as const},
      document: text,
      tokens: text,
      repeats: text,
      question: text,
      onnx: text,
      out: text,
    },
    ...{float16: {type: 'boolean'}, software: {type: 'boolean'}},
  },
});
const out = values.out ?? 'build/gpu';
const book = readFileSync(values.document ?? 'demo/public/books/dubliners.txt', 'utf8');
const lengths = (values.tokens ?? '8192').split(',').map(Number);
const repeats = Number(values.repeats ?? 3);
const question = values.question ?? 'Who tells this story, and what happens in it? Answer in two sentences.';
/** Of English in the models' tokens. */
const CHARACTERS_OF_TOKEN = 4.1;
const WAIT_MS = 240_000;

const results: object[] = [];
function report(result: object): void {
  results.push(result);
  console.log(JSON.stringify(result));
  writeFileSync(`${out}/chat.json`, `${JSON.stringify(results, undefined, 1)}\n`);
}

/** Sends a message and waits until all answers are there: what they show, and the time to the first token of the first one. */
async function send({page}: DemoPage, message: string): Promise<{shown: string; firstTokenMs: number}> {
  const stats = await page.locator('.stats').count();
  await page.fill('#message', message);
  await page.press('#message', 'Enter');
  await page.waitForFunction(
    (n) =>
      document.querySelectorAll('.stats').length > n ||
      /\S/.test(document.querySelector('#failure')?.textContent ?? ''),
    stats,
    {timeout: WAIT_MS},
  );
  await page.waitForFunction(() => document.querySelector('#send')?.textContent === 'Send', undefined, {
    timeout: WAIT_MS,
  });
  const failure = await page.locator('#failure').innerText();
  if (/\S/.test(failure)) throw new Error(failure);
  const shown = (await page.locator('.answer-message').last().innerText()).replace(/\s+/g, ' ').trim();
  const [, time, unit] = /First token after ([\d.]+) (ms|s)/.exec(shown) ?? [];
  return {shown, firstTokenMs: Number(time) * (unit === 's' ? 1000 : 1)};
}

async function load(demo: DemoPage, model: string): Promise<number> {
  const before = await demo.text('#model-info');
  const start = Date.now();
  await demo.page.setInputFiles('#model-files', model);
  await demo.page.waitForFunction(
    (old) => {
      const info = document.querySelector('#model-info')?.textContent?.replace(/\s+/g, ' ').trim();
      return info !== undefined && info !== '' && info !== old;
    },
    before,
    {timeout: WAIT_MS},
  );
  await demo.ready();
  return Date.now() - start;
}

async function takeDocument({page}: DemoPage, tokens: number): Promise<void> {
  if (await page.isVisible('#document-remove')) await page.click('#document-remove');
  if (await page.isEnabled('#clear-chat')) await page.click('#clear-chat');
  const content = Buffer.from(book.slice(0, Math.round(tokens * CHARACTERS_OF_TOKEN)));
  await page.setInputFiles('#document-file', {name: `${tokens}.txt`, mimeType: 'text/plain', buffer: content});
  await page.waitForFunction(
    () => /\d/.test(document.querySelector('#document-chip:not([hidden]) #document-tokens')?.textContent ?? ''),
    undefined,
    {timeout: WAIT_MS},
  );
}

async function screenshot({page}: DemoPage, name: string): Promise<void> {
  await page.setViewportSize({width: 1280, height: 900});
  await page.screenshot({path: `${out}/${name}.png`, fullPage: true});
  await page.setViewportSize({width: 390, height: 844});
  await page.locator('.answer-message').last().scrollIntoViewIfNeeded();
  await page.screenshot({path: `${out}/${name}-phone.png`});
  await page.setViewportSize({width: 1280, height: 900});
}

mkdirSync(out, {recursive: true});
const server = await DemoServer.open('build/demo', 'demo/public', ...(values.onnx ? [values.onnx] : []));
// Not an import: a GPU host has playwright-core in a folder of its own, which NODE_PATH names.
const {chromium} = createRequire(join(process.cwd(), 'test'))('playwright-core') as typeof import('playwright-core');
const float16Flags = ['--enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia'];
const browser = await chromium.launch({
  executablePath: findChromium(),
  ...(values.software
    ? {args: softwareFlags}
    : {
        args: [...gpuFlags, ...(values.float16 ? float16Flags : [])],
        ignoreDefaultArgs: ['--disable-gpu', '--enable-unsafe-swiftshader'],
      }),
});
const demo = await DemoPage.open(browser, server, '', 'backend=webgpu');
await demo.ready();
report({machine: await demo.text('#machine'), float16: values.float16 ?? false});
for (const model of values.model ?? []) {
  const name = basename(model);
  const loadMs = await load(demo, model);
  await demo.page.check('input[name=attention][value=pbs]');
  const hello = await send(demo, 'What is the capital of France?');
  report({model: name, loadMs, fileToFirstTokenMs: loadMs + hello.firstTokenMs, ...hello});
  for (const tokens of lengths) {
    for (const attention of ['pbs', 'exact']) {
      await demo.page.check(`input[name=attention][value=${attention}]`);
      const firstTokenMs: number[] = [];
      for (let i = 0; i < repeats; ++i) {
        await takeDocument(demo, tokens);
        firstTokenMs.push((await send(demo, question)).firstTokenMs);
      }
      report({model: name, tokens, attention, firstTokenMs});
    }
    await takeDocument(demo, tokens);
    await demo.page.check('input[name=attention][value=both]');
    report({model: name, document: await demo.text('#document-chip'), ...(await send(demo, question))});
    report({model: name, next: true, ...(await send(demo, 'Which places are named?'))});
    await screenshot(demo, `chat-${name}-${tokens}`);
  }
}
if (values.onnx) report({onnxRuntimeWeb: await timeOnnxRuntimeWeb(browser, server.url, lengths)});
await demo.close();
await browser.close();
server.close();
