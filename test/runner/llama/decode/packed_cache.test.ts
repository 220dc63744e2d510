import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {LlamaConfig} from '../../../../runner/llama/config';
import {PackedCache} from '../../../../runner/llama/decode/packed_cache';
import {copyWords} from '../../../../runner/quantised/webgpu/copy_words';
import {testBackends} from '../../../setup/environment';

if (testBackends().includes('webgpu')) {
  describe('packed cache [webgpu]', () => {
    before(() => tf.setBackend('webgpu'));

    it('holds rows as float16, also after it has grown', async () => {
      const before = tf.memory().numTensors;
      const config = {layers: 2, keyValueHeads: 3, headDim: 8} as LlamaConfig;
      const cache = new PackedCache(config, 4000);
      const random = (rows: number, seed: number) =>
        tf.randomNormal([1, 3, rows, 8], 0, 2, 'float32', seed) as tf.Tensor4D;
      const first = [0, 1].map((layer) => ({key: random(300, layer + 1), value: random(300, layer + 5)}));
      const second = [0, 1].map((layer) => ({key: random(900, layer + 11), value: random(900, layer + 15)}));
      // As they came, where nothing was before.
      first.forEach(({key, value}, layer) => {
        const all = cache.extend(layer, key, value);
        expect(all.key).to.equal(key);
        expect(all.value).to.equal(value);
      });
      const {generation} = cache;
      for (const [layer, {key, value}] of second.entries()) {
        const all = cache.extend(layer, key, value);
        for (const part of ['key', 'value'] as const) {
          const expected = tf.concat([first[layer][part], second[layer][part]], 2);
          const [got, wanted] = await Promise.all([all[part].data(), expected.data()]);
          expect(all[part].shape).to.deep.equal([1, 3, 1200, 8]);
          expect(Math.max(...got.map((x, i) => Math.abs(x - wanted[i]) / (Math.abs(wanted[i]) + 1e-3)))).to.be.lessThan(
            2 ** -10,
          );
          tf.dispose([all[part], expected]);
        }
      }
      expect(cache.length).to.equal(1200);
      expect(cache.generation).to.equal(generation + 1);
      cache.truncate(10);
      expect(cache.length).to.equal(10);
      cache.dispose();
      tf.dispose([...first, ...second].map(({key, value}) => [key, value]));
      expect(tf.memory().numTensors).to.equal(before);
    });

    it('words are copied to the last bit', async () => {
      const words = Int32Array.from([0x12345679, -0x7654321, 0x7fffffff, -1, 16_777_217]);
      const source = tf.tensor1d(words, 'int32');
      const copied = copyWords<tf.Tensor1D>(
        [4],
        [
          {source, from: 3, to: 0, words: 2},
          {source, from: 0, to: 2, words: 2},
        ],
      );
      source.dispose();
      expect([...(await copied.data())]).to.deep.equal([words[3], words[4], words[0], words[1]]);
      copied.dispose();
    });
  });
}
