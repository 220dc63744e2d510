import {transpose, tidy} from '@tensorflow/tfjs-core';
import {causalMask, composedAttention} from '../composed_attention';
import {exactAttention} from '../our_attention';
import type {AgreementResult} from '../results';
import {type HeadShape, shapeName} from '../shapes';
import {relativeL1} from '../statistics';
import type {CaseRunner} from './case_runner';
import {disposeInputs, uploadInputs} from './inputs';
import {randomFloats} from '../random_data';

const LENGTH = 256;
const SEED = 5;

/** Whether every peer computes what we compute, on one short input: a fast wrong answer is no peer. */
export async function compareOutputs(runner: CaseRunner): Promise<void> {
  const shape = {heads: 2, keyValueHeads: 1, headDim: 64};
  const {
    device: {precisions},
    place: {askOnnx},
  } = runner;
  const ours = await outputOf(shape, runner, 'ours-f32');
  const methods = [...(precisions.includes('float16') ? (['ours-f16'] as const) : []), 'composed' as const];
  for (const method of methods) {
    await compare(runner, shape, method, async () => relativeL1(await outputOf(shape, runner, method), ours));
  }
  if (!askOnnx) return;
  for (const dtype of ['float32', 'float16'] as const) {
    // The same model on the CPU tells a mistake in the model from one in the provider.
    for (const provider of ['webgpu', 'cpu'] as const) {
      const method = `ort-${provider === 'cpu' ? 'cpu-' : ''}${dtype === 'float32' ? 'f32' : 'f16'}` as const;
      await compare(runner, shape, method, async () => {
        const request = {...shape, task: 'output', provider, dtype, length: LENGTH, seed: SEED} as const;
        const answer = await askOnnx({...request, seconds: 0});
        if ('failure' in answer) throw new Error(answer.failure);
        return relativeL1((answer as {output: number[]}).output, ours);
      });
    }
  }
}

async function compare(
  runner: CaseRunner,
  shape: HeadShape,
  method: AgreementResult['method'],
  difference: () => Promise<number>,
) {
  const result: AgreementResult = {kind: 'agreement', shape: shapeName(shape), length: LENGTH, method};
  await runner.case(`agreement ${method}`, async () => {
    try {
      return [{...result, difference: await difference()}];
    } catch (error) {
      return [{...result, note: (error as Error).message}];
    }
  });
}

/** Output in the order `[length, heads, headDim]`, in which ONNX Runtime takes and gives it. */
async function outputOf(
  shape: HeadShape,
  {device}: CaseRunner,
  method: 'ours-f32' | 'ours-f16' | 'composed',
): Promise<ArrayLike<number>> {
  const precision = method === 'ours-f16' ? 'float16' : 'float32';
  const unavailable = device.whyNot(precision);
  if (unavailable) throw new Error(unavailable);
  const inputs = headFirst(shape);
  const mask = causalMask(LENGTH);
  const output = tidy(() => {
    const x = method === 'composed' ? composedAttention(inputs, mask) : exactAttention(inputs, precision);
    return transpose(x, [0, 2, 1, 3]);
  });
  try {
    return await output.data();
  } finally {
    output.dispose();
    mask.dispose();
    disposeInputs(inputs);
  }
}

/** The inputs that ONNX Runtime makes from the seed, in our order. */
function headFirst(shape: HeadShape) {
  const {heads, keyValueHeads, headDim} = shape;
  const values = (count: number, seed: number) => {
    const tokenFirst = randomFloats(LENGTH * count * headDim, seed);
    return tokenFirst.map((_, i) => {
      const [head, token] = [Math.floor(i / (LENGTH * headDim)), Math.floor(i / headDim) % LENGTH];
      return tokenFirst[(token * count + head) * headDim + (i % headDim)];
    });
  };
  return uploadInputs(shape, LENGTH, {
    query: values(heads, SEED),
    key: values(keyValueHeads, SEED + 1),
    value: values(keyValueHeads, SEED + 2),
  });
}
