import {grads, type Tensor4D} from '@tensorflow/tfjs-core';
// Registers the gradients of tfjs-core's own ops; bundles take the module of tfjs-core that does so (bench/bundle.ts).
import '@tensorflow/tfjs-layers';
import {pbsAttention} from '../../src/index';
import {timeCalls} from '../call_timing';
import {type Inputs, LONGEST_CAPTURE, openReader} from '../captured_attention';
import {causalMask, composedAttention} from '../composed_attention';
import type {Call} from '../device';
import {exactAttention, sparseOptions} from '../our_attention';
import type {GradientResult} from '../results';
import {scoreBytes, shapeName} from '../shapes';
import type {Timing} from '../statistics';
import type {CaseRunner} from './case_runner';
import {disposeInputs, randomInputs} from './inputs';

const LENGTHS = [1024, 2048, 4096, 8192, 16_384];
/** Longest for which tfjs's own ops are asked: they keep several score matrices for the way back. */
const LONGEST_COMPOSED = 4096;
const SEED = 19;

/** Output and gradients by query, key and value: exact against tfjs's own ops, and sparse against exact. */
export async function timeGradients(runner: CaseRunner): Promise<void> {
  const {options, device} = runner;
  const lengths = options.lengths ?? LENGTHS.filter((length) => length <= device.longest);
  for (const shape of options.shapes) {
    for (const length of lengths) {
      await runner.case(`gradient ${shapeName(shape)} ${length}`, async () => {
        const inputs = randomInputs(shape, length, SEED);
        const fits = length <= LONGEST_COMPOSED && scoreBytes(shape, length) <= device.scoreLimit.bytes;
        const mask = fits ? causalMask(length) : undefined;
        try {
          return [
            {
              kind: 'gradient',
              data: 'random',
              shape: shapeName(shape),
              length,
              exact: await timeWithGradients(runner, inputs, (x) => exactAttention(x, 'float32')),
              composed: mask && (await timeWithGradients(runner, inputs, (x) => composedAttention(x, mask))),
            },
          ];
        } finally {
          mask?.dispose();
          disposeInputs(inputs);
        }
      });
    }
  }
  await timeCaptured(runner, lengths);
}

/** On the layer in the middle of those that the options name. */
async function timeCaptured(runner: CaseRunner, lengths: readonly number[]): Promise<void> {
  const {options, place} = runner;
  const reader = await openReader(place.readFile);
  const sparse = sparseOptions(options.threshold);
  for (const length of lengths.filter((x) => x <= LONGEST_CAPTURE)) {
    await runner.case(`gradient captured ${length}`, async () => {
      const captured = await reader.capture(length);
      try {
        const layer = options.layers[Math.floor(options.layers.length / 2)];
        const inputs = captured[layer];
        const [, heads, , headDim] = inputs.query.shape;
        const result: GradientResult = {
          kind: 'gradient',
          data: 'captured',
          shape: shapeName({heads, keyValueHeads: inputs.key.shape[1], headDim}),
          length,
          layer,
          exact: await timeWithGradients(runner, inputs, (x) => exactAttention(x, 'float32')),
          sparse: await timeWithGradients(runner, inputs, (x) => pbsAttention(x.query, x.key, x.value, sparse)),
        };
        return [result];
      } finally {
        captured.forEach(disposeInputs);
      }
    });
  }
  reader.dispose();
}

function timeWithGradients(
  {device, options}: CaseRunner,
  {query, key, value}: Inputs,
  attention: (inputs: Inputs) => Tensor4D,
): Promise<Timing> {
  const gradients = grads((q, k, v) => attention({query: q as Tensor4D, key: k as Tensor4D, value: v as Tensor4D}));
  // The query stands for the gradient of the output: a loss of tfjs's ops, a sum over all, would take longer than attention.
  const call: Call = () => gradients([query, key, value], query)[0];
  return timeCalls(device.timer, call, options.caseSeconds / 2);
}
