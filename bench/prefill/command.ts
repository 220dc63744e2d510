import {readFile, writeFile} from 'node:fs/promises';
import {parseArgs} from 'node:util';
import {backend, env, memory, ready, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {PrefillAttention} from '../../runner/llama/attention';
import '../../runner/llama/kernels/webgpu/index';
import {openDawn} from '../../hosts/dawn';
import {openLocalModel} from '../../hosts/local_model';
import {openReader} from '../captured_attention';
import {openWebGPU} from '../webgpu/device';
import {profilePrefill, timeDecoding, timeNextQuestion, timePrefill, type PrefillRun} from './profile';
import {reportRun} from './report';

const USAGE = `npm run bench:prefill -- [options], or where there is no node_modules: node build/gpu/prefill.mjs [options]

Time to first token of a model over a book, in Node with Dawn: where it goes, by kernel and shape, and what a token takes after it.

  --model PATH       a .gguf file, or a folder in Hugging Face's form (default: the demo's model)
  --lengths LIST     tokens (default 4096,16384)
  --attention LIST   of flash, pbs (default both)
  --precision LIST   of flash and pbs: of float32, float16 (default float32)
  --timings N        timed prefills each (default 15)
  --warm-up MS       least time of prefills before the first that counts (default 1500)
  --seconds S        about how long to time the kernels of one prefill (default 6; 0: not at all)
  --decode N         tokens to write after each prompt (default 0)
  --question N       tokens of a second question over the same prompt, which is timed too (default 0: none)
  --program TYPE     tfjs's WEBGPU_MATMUL_PROGRAM_TYPE, to compare its products (default: tfjs's choice)
  --out FILE         the figures as JSON
  --help             this text

VK_DRIVER_FILES names the Vulkan driver, DAWN another dawn.node.`;

const ATTENTIONS = ['flash', 'pbs'] satisfies PrefillAttention[];
const BOOKS = ['dubliners', 'sense-and-sensibility', 'the-scarlet-letter'];
const PRECISIONS = ['float32', 'float16'] as const;

const text = {type: 'string'} as const;

function parseCommand(args: string[]) {
  const {values} = parseArgs({
    args,
    options: {
      ...{model: text, lengths: text, attention: text, precision: text, decode: text, question: text},
      ...{timings: text, 'warm-up': text, seconds: text, program: text, out: text, help: {type: 'boolean'}},
    },
  });
  if (values.help) return 'help';
  const number = (name: string, value: string, least: number, most: number) => {
    const parsed = value.trim() === '' ? NaN : Number(value);
    if (!(parsed >= least && parsed <= most)) {
      throw new Error(`${name} is "${value}"; accepted: a number from ${least} to ${most}`);
    }
    return parsed;
  };
  const one = <T extends string>(name: string, value: string, accepted: readonly T[]): T => {
    const found = accepted.find((candidate) => candidate === value);
    if (found === undefined) throw new Error(`${name} is "${value}"; accepted: ${accepted.join(', ')}`);
    return found;
  };
  return {
    model: values.model,
    lengths: (values.lengths ?? '4096,16384').split(',').map((part) => number('--lengths', part, 1, 2 ** 20)),
    attentions: (values.attention ?? 'flash,pbs').split(',').map((part) => one('--attention', part, ATTENTIONS)),
    precisions: (values.precision ?? 'float32').split(',').map((part) => one('--precision', part, PRECISIONS)),
    question: number('--question', values.question ?? '0', 0, 1000),
    decode: number('--decode', values.decode ?? '0', 0, 10_000),
    timings: number('--timings', values.timings ?? '15', 1, 1000),
    warmUpMs: number('--warm-up', values['warm-up'] ?? '1500', 0, 1e5),
    seconds: number('--seconds', values.seconds ?? '6', 0, 600),
    program: values.program === undefined ? undefined : number('--program', values.program, 0, 3),
    out: values.out,
  };
}

async function main(): Promise<void> {
  const command = parseCommand(process.argv.slice(2));
  if (command === 'help') {
    console.log(USAGE);
    return;
  }
  openDawn();
  const device = await openWebGPU([]);
  await setBackend('webgpu');
  await ready();
  if (command.program !== undefined) env().set('WEBGPU_MATMUL_PROGRAM_TYPE', command.program);
  console.log(`${device.about.adapter}, Node ${process.version} with Dawn, ${new Date().toISOString().slice(0, 16)}Z`);
  const {timings, warmUpMs, seconds, decode, question} = command;
  const {model, tokens} = await openModel(command.model, Math.max(...command.lengths) + Math.max(decode, question) + 1);
  const runs: PrefillRun[] = [];
  for (const length of command.lengths) {
    const ids = tokens(length);
    for (const precision of command.precisions) {
      for (const attention of command.attentions) {
        const work = {model, ids, request: {attention, options: {precision}}};
        const timed = await timePrefill(work, timings, warmUpMs);
        const decoded = decode > 0 ? await timeDecoding(work, decode) : undefined;
        const nextQuestion = question > 0 ? await timeNextQuestion(work, question) : undefined;
        const profile = seconds > 0 ? await profilePrefill(backend() as WebGPUBackend, work, seconds) : undefined;
        if (device.errors.length > 0) throw new Error(`device: ${device.errors.join('\n')}`);
        // What the backend has taken from the device, free buffers that it keeps among them.
        const gpuBytes = (memory() as unknown as {numBytesAllocatedInGPU: number}).numBytesAllocatedInGPU;
        const run = {length, attention, precision, ...timed, decode: decoded, nextQuestion, gpuBytes, profile};
        runs.push(run);
        console.log(reportRun(run));
        if (command.out) {
          await writeFile(command.out, `${JSON.stringify({about: device.about, model: command.model, runs})}\n`);
        }
      }
    }
  }
}

/** The model, and the first tokens of a book, or of several where one is short. */
async function openModel(path: string | undefined, longest: number) {
  const read = async (file: string) => {
    const {buffer, byteOffset, byteLength} = await readFile(file);
    return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
  };
  if (path === undefined) return openReader(read);
  const {model, tokenizer} = await openLocalModel(path, longest);
  const books = await Promise.all(BOOKS.map((name) => read(`demo/public/books/${name}.txt`)));
  const text = books.map((book) => new TextDecoder().decode(book)).join('\n\n');
  const {ids} = tokenizer.encode(text.slice(0, 8 * longest));
  if (ids.length < longest) throw new Error(`the books have ${ids.length} tokens; asked for ${longest}`);
  return {model, tokens: (length: number) => ids.slice(0, length)};
}

try {
  await main();
  // Dawn keeps the process alive.
  process.exit(0);
} catch (error) {
  console.error(`bench:prefill: ${(error as Error).message}`);
  process.exit(1);
}
