import {add, dispose, matMul, mul, reshape, slice, softmax, type Tensor4D, tidy} from '@tensorflow/tfjs-core';
import {flashAttention, packFloat16} from '../../src/index';
import {timeCalls} from '../call_timing';
import type {Inputs} from '../captured_attention';
import type {Call, Timer} from '../device';
import {type DecodeResult, timeOnDevice} from '../results';
import {shapeName} from '../shapes';
import type {CaseRunner} from './case_runner';
import {disposeInputs, randomInputs} from './inputs';

const LENGTHS = [1024, 4096, 16_384, 65_536];
/** A decoded token, and some at once, as in speculative decoding. */
const ROWS = [1, 8];
const SEED = 13;

/** The last rows of a query over the keys and values of a cache, exact. */
export async function timeDecoding(runner: CaseRunner): Promise<void> {
  const {options, device} = runner;
  for (const shape of options.shapes) {
    for (const length of options.lengths ?? LENGTHS.filter((x) => x <= device.longest)) {
      for (const rows of ROWS) {
        await runner.case(`decode ${shapeName(shape)} ${length} rows ${rows}`, async () => {
          const inputs = randomInputs(shape, length, SEED);
          const query = slice(inputs.query, [0, 0, length - rows, 0], [1, shape.heads, rows, shape.headDim]);
          const {key, value} = inputs;
          const packed = device.about.backend === 'webgpu' ? [packFloat16(key), packFloat16(value)] : undefined;
          const composed = () => composedToken(query, inputs);
          const time = (call: Call) => timeBoth(device.timer, call, options.caseSeconds / 4);
          try {
            const {programs, ...decoded} = await time(() => flashAttention(query, key, value));
            const sum = await time(() => add(key, value));
            const ofPacked = packed && (await time(() => flashAttention(query, packed[0], packed[1])));
            const result: DecodeResult = {
              kind: 'decode',
              shape: shapeName(shape),
              length,
              rows,
              ...decoded,
              programs,
              bytes: 4 * (key.size + value.size),
              streamed: (4 * 3 * key.size) / timeOnDevice(sum, device.about.backend),
              packed: ofPacked && {call: ofPacked.call, gpu: ofPacked.gpu},
              // With several rows the composed way needs a mask as well.
              composed: rows === 1 ? await timeCalls(device.timer, composed, options.caseSeconds / 4) : undefined,
            };
            return [result];
          } finally {
            dispose([query, packed ?? []]);
            disposeInputs(inputs);
          }
        });
      }
    }
  }
}

/** By the clock, and where the device can tell on the GPU, all programs together. */
async function timeBoth(timer: Timer, call: Call, seconds: number) {
  const programs = await timer.timePrograms(call, seconds / 2);
  const gpu = programs?.reduce((sum, program) => sum + program.gpu.median, 0);
  return {call: await timeCalls(timer, call, seconds), gpu, programs};
}

/** A token's attention as a page writes it without this library. Heads that share a key head are rows of one matrix. */
function composedToken(query: Tensor4D, {key, value}: Inputs): Tensor4D {
  return tidy(() => {
    const [, heads, , headDim] = query.shape;
    const [, keyHeads, length] = key.shape;
    const grouped = reshape(query, [keyHeads, heads / keyHeads, headDim]);
    const scores = mul(matMul(grouped, reshape(key, [keyHeads, length, headDim]), false, true), 1 / Math.sqrt(headDim));
    return reshape(matMul(softmax(scores), reshape(value, [keyHeads, length, headDim])), query.shape);
  });
}
