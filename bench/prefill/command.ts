import {readFile, writeFile} from 'node:fs/promises';
import {parseArgs} from 'node:util';
import {backend, env, ready, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {PrefillAttention, PrefillOptions} from '../../runner/llama/attention';
import '../../runner/llama/kernels/webgpu/index';
import {openDawn} from '../../hosts/dawn';
import {openReader} from '../captured_attention';
import {openWebGPU} from '../webgpu/device';
import {profilePrefill, timePrefill, type PrefillRun} from './profile';
import {reportRun} from './report';

const USAGE = `npm run bench:prefill -- [options], or where there is no node_modules: node build/gpu/prefill.mjs [options]

Time to first token of the demo's model over a book, in Node with Dawn: where it goes, by kernel and shape.

  --lengths LIST     tokens (default 4096,16384)
  --attention LIST   of flash, pbs (default both)
  --threshold T      of pbs (default 0.9)
  --precision P      of flash and pbs: float32 or float16 (default float32)
  --timings N        timed prefills each (default 15)
  --warm-up MS       least time of prefills before the first that counts (default 1500)
  --seconds S        about how long to time the kernels of one prefill (default 6; 0: not at all)
  --program TYPE     tfjs's WEBGPU_MATMUL_PROGRAM_TYPE, to compare its products (default: tfjs's choice)
  --out FILE         the figures as JSON
  --help             this text

VK_DRIVER_FILES names the Vulkan driver, DAWN another dawn.node.`;

const ATTENTIONS = ['flash', 'pbs'] satisfies PrefillAttention[];
const PRECISIONS = ['float32', 'float16'] as const;

const text = {type: 'string'} as const;

function parseCommand(args: string[]) {
  const {values} = parseArgs({
    args,
    options: {
      ...{lengths: text, attention: text, threshold: text, precision: text},
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
    lengths: (values.lengths ?? '4096,16384').split(',').map((part) => number('--lengths', part, 1, 16_384)),
    attentions: (values.attention ?? 'flash,pbs').split(',').map((part) => one('--attention', part, ATTENTIONS)),
    options: {
      threshold: number('--threshold', values.threshold ?? '0.9', 0, 1),
      precision: one('--precision', values.precision ?? 'float32', PRECISIONS),
    } satisfies PrefillOptions,
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
  const reader = await openReader(async (path) => {
    const {buffer, byteOffset, byteLength} = await readFile(path);
    return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
  });
  const {options, timings, warmUpMs, seconds} = command;
  const runs: PrefillRun[] = [];
  for (const length of command.lengths) {
    const ids = reader.tokens(length);
    for (const attention of command.attentions) {
      const work = {model: reader.model, ids, request: {attention, options}};
      const timed = await timePrefill(work, timings, warmUpMs);
      const profile = seconds > 0 ? await profilePrefill(backend() as WebGPUBackend, work, seconds) : undefined;
      if (device.errors.length > 0) throw new Error(`device: ${device.errors.join('\n')}`);
      const run = {length, attention, ...timed, profile};
      runs.push(run);
      console.log(reportRun(run));
      if (command.out) await writeFile(command.out, `${JSON.stringify({about: device.about, options, runs})}\n`);
    }
  }
}

try {
  await main();
  // Dawn keeps the process alive.
  process.exit(0);
} catch (error) {
  console.error(`bench:prefill: ${(error as Error).message}`);
  process.exit(1);
}
