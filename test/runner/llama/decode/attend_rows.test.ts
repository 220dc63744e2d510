import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {AttendRowsProgram} from '../../../../runner/llama/decode/attend_rows';
import {ReadRowsProgram, StoreRowsProgram} from '../../../../runner/llama/decode/store_rows';
import {StoreTokensProgram} from '../../../../runner/llama/decode/store_tokens';
import {rotaryTables} from '../../../../runner/llama/rotary';
import {type AttentionProgram, CombineStatesProgram} from '../../../../src/internal';
import {testBackends} from '../../../setup/environment';

interface Case {
  shape: {heads: number; keyValueHeads: number; headDim: number};
  /** Keys in the cache before. */
  held: number;
  /** New tokens, of so many rows that a step has. */
  tokens: number;
  rows: number;
  window?: number;
}

const ofHeads = (heads: number, keyValueHeads: number, headDim: number) => ({heads, keyValueHeads, headDim});
const CASES: readonly Case[] = [
  // One query row a head, in one tile or with places left over; keys in one chunk, in many, in several rounds of a chunk.
  {shape: ofHeads(2, 2, 64), held: 40, tokens: 1, rows: 1},
  {shape: ofHeads(3, 1, 64), held: 700, tokens: 1, rows: 1},
  {shape: ofHeads(8, 1, 256), held: 300, tokens: 1, rows: 1},
  {shape: ofHeads(3, 3, 16), held: 20_000, tokens: 1, rows: 1},
  // Several tiles, the last ones empty or in part.
  {shape: ofHeads(14, 2, 64), held: 1500, tokens: 32, rows: 32},
  {shape: ofHeads(6, 3, 40), held: 129, tokens: 11, rows: 32},
  {shape: ofHeads(3, 1, 128), held: 5000, tokens: 2, rows: 32},
  // Windows: of one key, of some in several chunks.
  {shape: ofHeads(2, 2, 64), held: 40, tokens: 3, rows: 32, window: 1},
  {shape: ofHeads(14, 2, 64), held: 900, tokens: 32, rows: 32, window: 129},
];

const uniform = (shape: number[], seed: number) => tf.randomUniform(shape, -2, 2, 'float32', seed);

/** The output of the programs, `[tokens, heads, headDim]`, and what it should be. */
async function attendBoth({
  shape,
  held,
  tokens,
  rows,
  window,
}: Case): Promise<{got: Float32Array; expected: Float32Array}> {
  const {heads, keyValueHeads, headDim} = shape;
  const backend = tf.backend() as WebGPUBackend;
  const made: tf.Tensor[] = [];
  const keep = <T extends tf.Tensor>(tensor: T): T => (made.push(tensor), tensor);
  const run = (program: AttentionProgram<object>) => keep(tf.engine().makeTensorFromTensorInfo(program.run(backend)));
  const length = held + tokens;
  const cache = keep(tf.zeros([2, keyValueHeads, length + 7, headDim / 2], 'int32'));
  const [key, value] = [1, 2].map((seed) => keep(uniform([1, keyValueHeads, held, headDim], seed)));
  new StoreRowsProgram(key, value, cache.shape, 0).runInto(backend, cache);
  const projected = keep(uniform([rows, (heads + 2 * keyValueHeads) * headDim], 3));
  const rotary = rotaryTables(length, headDim, 10_000, undefined);
  made.push(rotary.cos, rotary.signedSin);
  const inputs = {projected, span: keep(tf.tensor1d([held, tokens], 'int32')), rotary, window, shape};
  new StoreTokensProgram(inputs, cache).runInto(backend, cache);
  const states = run(new AttendRowsProgram(inputs, cache));
  const output = run(new CombineStatesProgram(states, {batch: 1, heads: rows, queryLength: heads, valueDim: headDim}));
  // What the cache holds is what is attended to: keys and values rounded to float16.
  const parts = [
    output,
    projected,
    rotary.cos,
    rotary.signedSin,
    ...[false, true].map((isValue) => run(new ReadRowsProgram(cache, length, isValue))),
  ];
  const [all, x, cos, signedSin, keys, values] = (await Promise.all(
    parts.map((part) => part.data()),
  )) as Float32Array[];
  tf.dispose(made);
  const expected = new Float32Array(tokens * heads * headDim);
  for (let token = 0; token < tokens; ++token) {
    for (let head = 0; head < heads; ++head) {
      const at = token * projected.shape[1]! + head * headDim;
      const query = Array.from({length: headDim}, (_, i) => {
        const angle = (held + token) * headDim + i;
        return x[at + i] * cos[angle] + x[at + ((i + headDim / 2) % headDim)] * signedSin[angle];
      });
      const first = Math.floor(head / (heads / keyValueHeads)) * length * headDim;
      const scores = Array.from({length: held + token + 1}, (_, j) =>
        held + token - j < (window ?? Infinity)
          ? query.reduce((sum, q, i) => sum + q * keys[first + j * headDim + i], 0) / Math.sqrt(headDim)
          : -Infinity,
      );
      const largest = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - largest));
      const sum = weights.reduce((a, b) => a + b);
      for (let i = 0; i < headDim; ++i) {
        expected[(token * heads + head) * headDim + i] =
          weights.reduce((total, weight, j) => total + weight * values[first + j * headDim + i], 0) / sum;
      }
    }
  }
  return {got: all.subarray(0, expected.length), expected};
}

if (testBackends().includes('webgpu')) {
  describe('attention of new tokens to a packed cache [webgpu]', () => {
    before(() => tf.setBackend('webgpu'));

    for (const one of CASES) {
      const {shape, held, tokens, rows, window} = one;
      it(`${tokens} of ${rows} rows, ${shape.heads} heads on ${shape.keyValueHeads} of ${shape.headDim}, after ${held} keys${window ? `, window ${window}` : ''}`, async () => {
        const before = tf.memory().numTensors;
        const {got, expected} = await attendBoth(one);
        const error = Math.hypot(...got.map((value, i) => value - expected[i])) / Math.hypot(...expected);
        expect(error).to.be.lessThan(2e-6);
        expect(tf.memory().numTensors).to.equal(before);
      });
    }
  });
}
