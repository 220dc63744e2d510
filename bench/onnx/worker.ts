import {randomFloats, randomHalves} from '../random_data';
import {timing, type Timing} from '../statistics';
import {attentionModel} from './attention_model';
import type {OnnxAnswer, OnnxRequest} from './messages';
import {loadOnnxRuntime, type OnnxRuntime, type OnnxSession} from './runtime';

/** Argument that makes the benchmark's program this worker. */
export const WORKER_FLAG = '--onnx-worker';

/** Answers requests of the parent process until that goes away. */
export function serveOnnxRequests(): void {
  process.on('message', (request: OnnxRequest) => {
    void answer(request).then((message) => process.send!(message));
  });
  process.on('disconnect', () => process.exit(0));
}

async function answer(request: OnnxRequest): Promise<OnnxAnswer> {
  let version = 'not there';
  try {
    const ort = loadOnnxRuntime();
    version = ort.env.versions.node ?? ort.env.versions.common ?? 'unknown';
    return request.task === 'time'
      ? {version, timing: await timeCall(ort, request)}
      : {version, output: await output(ort, request)};
  } catch (error) {
    const message = (error as Error).message.replace(/\s+/g, ' ').replace(/^.*Status Message: /, '');
    return {version, failure: message.slice(0, 200)};
  }
}

async function open(
  ort: OnnxRuntime,
  {heads, keyValueHeads, headDim, length, window, seed, dtype, provider}: OnnxRequest,
  nodes: number,
  wholeOutput: boolean,
): Promise<OnnxSession> {
  const random = dtype === 'float32' ? randomFloats : randomHalves;
  const width = length * headDim;
  const model = attentionModel({
    ...{nodes, dtype, heads, keyValueHeads, length, headDim, window, wholeOutput},
    query: random(heads * width, seed),
    key: random(keyValueHeads * width, seed + 1),
    value: random(keyValueHeads * width, seed + 2),
  });
  return ort.InferenceSession.create(model, {
    executionProviders: [provider],
    graphOptimizationLevel: 'disabled',
    logSeverityLevel: 4,
    // A node that the provider lacks is an error, not a run on the CPU.
    ...(provider === 'webgpu' && {extra: {session: {disable_cpu_ep_fallback: '1'}}}),
  });
}

async function output(ort: OnnxRuntime, request: OnnxRequest): Promise<number[]> {
  const session = await open(ort, request, 1, true);
  const {output0} = await session.run({});
  await session.release();
  return [...(output0.data instanceof Uint16Array ? Array.from(output0.data, float16Value) : output0.data)];
}

/** What the calls between a long and a short chain should take together at least, and how many they may be. */
const CHAIN_MS = 40;
const LONGEST_CHAIN = 32;

/** Calls that need no second run to be warm. */
const LONG_MS = 500;

/** A chain of nodes less a chain of one, divided by the nodes between: the time of a call without what surrounds a run. */
async function timeCall(ort: OnnxRuntime, request: OnnxRequest): Promise<Timing> {
  const one = await open(ort, request, 1, false);
  const runFor = async (session: OnnxSession) => {
    const start = performance.now();
    await session.run({});
    return performance.now() - start;
  };
  await runFor(one);
  let estimate = await runFor(one);
  if (estimate < LONG_MS) estimate = Math.min(estimate, await runFor(one));
  const more = Math.max(1, Math.min(LONGEST_CHAIN, Math.ceil(CHAIN_MS / estimate)));
  const chain = await open(ort, request, 1 + more, false);
  const pair = (await runFor(chain)) + estimate;
  if (estimate < LONG_MS) await runFor(chain);
  const timings = Math.max(3, Math.min(12, Math.floor((1000 * request.seconds) / pair)));
  const samples: number[] = [];
  for (let i = 0; i < timings; ++i) {
    const short = await runFor(one);
    samples.push(((await runFor(chain)) - short) / more);
  }
  await one.release();
  await chain.release();
  return timing(samples, more);
}

function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
