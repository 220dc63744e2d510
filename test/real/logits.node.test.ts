import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {matrixUnitsOf} from '../../src/internal';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {openLocalModel} from '../../hosts/local_model';
import type {LlamaModel} from '../../runner/llama/model';
import type {PrefillRequest} from '../../runner/llama/prefill_request';
import {GREEDY, Sampler} from '../../runner/llama/sample';
import {fixture, testBackends} from '../setup/environment';
import {realModels} from './models';

/** By transformers in float32 on the CPU, of the same weights, dequantised. */
interface Reference {
  /** 256 tokens of a text, and what the model loses at each but the first, in nats. */
  ids: number[];
  losses: number[];
  /** The largest logits of the last row. */
  lastRowTop20: [id: number, logit: number][];
  greedy48: number[];
}

/** Rows of logits at a time: of 150,000 tokens a row takes 0.6 MB. */
const ROWS = 64;

const models = realModels().flatMap((model) => testBackends().map((backend) => ({...model, backend})));

for (const {name, path, backend} of models) {
  describe(`${name} [${backend}]`, function () {
    this.timeout(1_800_000);
    let model: LlamaModel;
    let reference: Reference;
    before(async () => {
      await tf.setBackend(backend);
      reference = JSON.parse(new TextDecoder().decode(await fixture(`test/real/${name}.json`))) as Reference;
      ({model} = await openLocalModel(path, 512));
    });
    after(() => model.dispose());

    /** Of the largest logits after the text, the length of the difference by their length. */
    async function errorOf(logits: tf.Tensor1D): Promise<number> {
      const {lastRowTop20} = reference;
      const got = await logits.data();
      const norm = Math.hypot(...lastRowTop20.map(([, logit]) => logit));
      return Math.hypot(...lastRowTop20.map(([id, logit]) => got[id] - logit)) / norm;
    }

    async function hiddenOf(request: PrefillRequest): Promise<tf.Tensor2D> {
      let hidden: tf.Tensor2D | undefined;
      const onHidden = (all: tf.Tensor2D) => void (hidden = tf.keep(all.clone()));
      const {logits, cache} = await model.prefill(reference.ids, {...request, onHidden});
      logits.dispose();
      cache.dispose();
      return hidden!;
    }

    /** `measure`'s values, one for each row of hidden states, of logits `[rows, vocabSize]`. */
    async function ofRows(
      hidden: tf.Tensor2D[],
      measure: (logits: tf.Tensor2D[], first: number) => tf.Tensor,
    ): Promise<number[]> {
      const values: number[] = [];
      for (let first = 0; first < hidden[0].shape[0]; first += ROWS) {
        const rows = Math.min(ROWS, hidden[0].shape[0] - first);
        const some = tf.tidy(() =>
          measure(
            hidden.map((x) => model.logitsOf(tf.slice(x, [first, 0], [rows, -1]))),
            first,
          ),
        );
        values.push(...(await some.data()));
        some.dispose();
      }
      return values;
    }

    it('has the losses, the last logits and the continuation of transformers', async () => {
      const {ids, losses, greedy48} = reference;
      const {logits, cache} = await model.prefill(ids);
      const error = await errorOf(logits);
      console.log(`      last logits: ${error.toExponential(1)}`);
      expect(error).to.be.at.most(1e-3);
      const hidden = await hiddenOf({});
      const own = await ofRows([hidden], ([scores], first) => {
        const nextIds = tf.tensor1d([...ids, 0].slice(first + 1, first + 1 + scores.shape[0]), 'int32');
        const next = tf.sum(tf.mul(tf.oneHot(nextIds, scores.shape[1]), scores), 1);
        return tf.sub(tf.logSumExp(scores, 1), next);
      });
      hidden.dispose();
      // Seen: 4e-5 on SmolLM2.
      expect(Math.max(...losses.map((loss, row) => Math.abs(own[row] - loss)))).to.be.at.most(1e-3);
      const best = tf.tidy(() => tf.argMax(logits));
      const tokens = [...(await best.data())];
      tf.dispose([best, logits]);
      const sampler = new Sampler(GREEDY);
      while (tokens.length < greedy48.length) tokens.push(await model.decodeNext(tokens.at(-1)!, cache, sampler));
      cache.dispose();
      expect(tokens).to.deep.equal(greedy48);
    });

    it('has the last logits after the text was read in parts', async () => {
      const {ids} = reference;
      const first = await model.prefill(ids.slice(0, 200));
      first.logits.dispose();
      const {logits, cache} = await model.prefill(ids.slice(200), {cache: first.cache});
      const error = await errorOf(logits);
      console.log(`      last logits: ${error.toExponential(1)}`);
      // Keys and values of the first part are read in float16 on WebGPU.
      expect(error).to.be.at.most(backend === 'webgpu' ? 2e-3 : 1e-3);
      tf.dispose(logits);
      cache.dispose();
    });

    it('has nearly the same distributions in float16', async function () {
      if (backend !== 'webgpu' || !matrixUnitsOf((tf.backend() as WebGPUBackend).device)) this.skip();
      const hidden = [
        await hiddenOf({attention: 'flash'}),
        await hiddenOf({attention: 'flash', options: {precision: 'float16'}}),
      ];
      const divergences = await ofRows(hidden, (scores) => {
        const [wanted, got] = scores.map((x) => tf.logSoftmax(x));
        return tf.sum(tf.mul(tf.exp(wanted), tf.sub(wanted, got)), 1);
      });
      tf.dispose(hidden);
      const mean = divergences.reduce((sum, value) => sum + value, 0) / divergences.length;
      console.log(`      KL: ${mean.toExponential(1)}`);
      expect(mean).to.be.at.most(1e-4);
    });
  });
}
