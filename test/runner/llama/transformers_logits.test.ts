import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PrefillAttention} from '../../../runner/llama/attention';
import type {KeyValueCache} from '../../../runner/llama/cache';
import {generate} from '../../../runner/llama/generate';
import type {LlamaModel} from '../../../runner/llama/model';
import type {PrefillRequest} from '../../../runner/llama/prefill_request';
import {describeBackends} from '../../setup/environment';
import {loadModel} from './tiny/random_checkpoint';
import {
  CHECKPOINTS,
  checkpointFiles,
  expectedOf,
  type CheckpointName,
  type Expected,
} from './tiny/transformers_checkpoint';

// Two segments and a part of one, and blocks of which the causal ones are kept.
const options = {blockSize: 8, segmentSize: 16, threshold: 1};

/** Length of the difference over the length of what was expected. */
function relativeError(got: ArrayLike<number>, expected: number[]): number {
  expect(got.length).to.equal(expected.length);
  return Math.hypot(...expected.map((x, i) => got[i] - x)) / Math.hypot(...expected);
}

async function takeData(tensor: tf.Tensor): Promise<ArrayLike<number>> {
  const values = await tensor.data();
  tensor.dispose();
  return values;
}

async function prefillLogits(model: LlamaModel, ids: number[], request: PrefillRequest): Promise<ArrayLike<number>> {
  const {logits, cache} = await model.prefill(ids, request);
  cache.dispose();
  return takeData(logits);
}

async function prefilled(model: LlamaModel, ids: number[]): Promise<{cache: KeyValueCache}> {
  const {logits, cache} = await model.prefill(ids);
  logits.dispose();
  return {cache};
}

describeBackends('tiny checkpoints against transformers', (backend) => {
  const tolerance = backend === 'cpu' ? 1e-4 : 1e-3;
  before(() => tf.setBackend(backend));

  for (const [name, what] of Object.entries(CHECKPOINTS) as Array<[CheckpointName, string]>) {
    describe(what, () => {
      let tensorsBefore: number;
      let model: LlamaModel;
      let expected: Expected;
      before(async () => {
        tensorsBefore = tf.memory().numTensors;
        expected = await expectedOf(name);
        model = await loadModel(await checkpointFiles(name));
      });
      after(() => {
        model.dispose();
        expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensorsBefore);
      });

      // What files of llama.cpp have of their own is in their weights and config.
      const isGGUF = name.endsWith('_gguf');
      // Composed attention is of tfjs's own ops: what it does for each architecture, the CPU shows; that it runs, the first of them.
      const isComposed = !isGGUF && (backend === 'cpu' || name === Object.keys(CHECKPOINTS)[0]);
      const attentions: PrefillAttention[] = isComposed ? ['composed', 'flash'] : ['flash'];
      if (!isGGUF) attentions.push('pbs');
      for (const attention of attentions) {
        it(`prefills with ${attention} attention`, async () => {
          const got = await prefillLogits(model, expected.ids, {attention, options});
          expect(relativeError(got, expected.logits.at(-1)!)).to.be.lessThan(tolerance);
        });
      }

      it('reads the rest after a prefill of a part', async () => {
        const {ids, logits: rows} = expected;
        // On WebGPU in steps of 32 tokens, the last of them not full.
        const {cache} = await prefilled(model, ids.slice(0, 5));
        const got = await prefillLogits(model, ids.slice(5), {cache});
        expect(relativeError(got, rows.at(-1)!)).to.be.lessThan(tolerance);
      });

      if (isGGUF) return;

      it('continues with the same tokens', async () => {
        const {tokens} = await generate(model, expected.ids, {maxTokens: expected.greedy.length});
        expect(tokens).to.deep.equal(expected.greedy);
      });

      it('gives the logits within the prompt', async () => {
        const size = model.config.vocabSize;
        let rows: tf.Tensor | undefined;
        const onHidden = (hidden: tf.Tensor2D) => void (rows = model.logitsOf(hidden));
        await prefillLogits(model, expected.ids, {onHidden});
        const all = Array.from(await takeData(rows!));
        for (const [i, position] of expected.positions.entries()) {
          const got = all.slice(position * size, (position + 1) * size);
          expect(relativeError(got, expected.logits[i]), `after token ${position}`).to.be.lessThan(tolerance);
        }
      });

      it('decodes after a prefill of a part', async () => {
        const {ids, positions, logits: rows} = expected;
        const prefilled = positions[1] + 1;
        const {logits, cache} = await model.prefill(ids.slice(0, prefilled));
        let next: tf.Tensor = logits;
        const seen: number[] = [];
        for (let at = prefilled - 1; at < ids.length; ++at) {
          if (at >= prefilled) next = model.decode(ids[at], cache);
          const values = await takeData(next);
          const index = positions.indexOf(at);
          if (index === -1) continue;
          expect(relativeError(values, rows[index]), `after token ${at}`).to.be.lessThan(tolerance);
          seen.push(at);
        }
        expect(seen).to.deep.equal(positions.slice(1));
        cache.dispose();
      });
    });
  }
});
