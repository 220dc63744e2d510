import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {openLocalModel} from '../../hosts/local_model';
import type {LlamaModel} from '../../runner/llama/model';
import {fixture} from '../setup/environment';
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

for (const {name, path} of realModels()) {
  describe(`${name} [cpu]`, function () {
    this.timeout(1_800_000);
    let model: LlamaModel;
    let reference: Reference;
    before(async () => {
      await tf.setBackend('cpu');
      reference = JSON.parse(new TextDecoder().decode(await fixture(`test/real/${name}.json`))) as Reference;
      ({model} = await openLocalModel(path, 512));
    });
    after(() => model.dispose());

    it('has the losses, the last logits and the continuation of transformers', async () => {
      const {ids, losses, lastRowTop20, greedy48} = reference;
      let hidden: tf.Tensor2D | undefined;
      const {logits, cache} = await model.prefill(ids, {onHidden: (all) => void (hidden = tf.keep(all.clone()))});
      const got = await logits.data();
      const norm = Math.hypot(...lastRowTop20.map(([, logit]) => logit));
      expect(Math.hypot(...lastRowTop20.map(([id, logit]) => got[id] - logit)) / norm).to.be.at.most(1e-3);
      const differences = await Promise.all(
        losses.map(async (loss, row) => {
          const own = tf.tidy(() => {
            const scores = model.logitsOf(tf.slice(hidden!, [row, 0], [1, -1]));
            return tf.sub(tf.logSumExp(scores), tf.gather(tf.reshape(scores, [-1]), ids[row + 1]));
          });
          const [value] = await own.data();
          own.dispose();
          return Math.abs(value - loss);
        }),
      );
      // Seen: 4e-5 on SmolLM2.
      expect(Math.max(...differences)).to.be.at.most(1e-3);
      hidden!.dispose();
      let next = logits;
      const tokens: number[] = [];
      while (tokens.length < greedy48.length) {
        const best = tf.tidy(() => tf.argMax(next));
        tokens.push((await best.data())[0]);
        tf.dispose([best, next]);
        next = model.decode(tokens.at(-1)!, cache);
      }
      tf.dispose(next);
      cache.dispose();
      expect(tokens).to.deep.equal(greedy48);
    });
  });
}
