import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {composedAttention} from '../../../runner/llama/attention';
import {PAGE_ROWS, PagedCache} from '../../../runner/llama/cache';
import {decodeAttention} from '../../../runner/llama/decode_attention';
import {describeBackends} from '../../setup/environment';

describeBackends('attention of a decoded token', (backend) => {
  before(() => tf.setBackend(backend));

  // Groups of heads; rows of vectors and of single values; a page that has begun, one that is full, and the one after it.
  // Windows: within the page, from the rows before it on, of one key, longer than all.
  for (const [heads, keyValueHeads, headDim, rest, written, window] of [
    [4, 2, 8, 5, 1],
    [3, 3, 10, 40, 7],
    [4, 1, 64, 1, PAGE_ROWS],
    [6, 2, 16, 230, PAGE_ROWS + 2],
    [4, 2, 8, 40, 7, 5],
    [4, 2, 8, 40, 7, 20],
    [2, 1, 8, 9, 3, 1],
    [6, 2, 16, 230, PAGE_ROWS + 2, 100],
    [4, 2, 8, 5, 9, 200],
  ] as Array<[number, number, number, number, number, number?]>) {
    it(`${heads} heads of ${headDim} on ${keyValueHeads}, ${rest} + ${written} keys${window ? `, window ${window}` : ''}`, async () => {
      const random = (length: number, head = keyValueHeads) =>
        tf.randomUniform([1, head, length, headDim], -2, 2, 'float32', length + head) as tf.Tensor4D;
      const [key, value] = [random(rest + written), random(rest + written + 1)];
      const query = random(1, heads);
      const rows = (x: tf.Tensor4D, first: number, count: number) =>
        tf.slice(x, [0, 0, first, 0], [1, keyValueHeads, count, headDim]);
      const cache = new PagedCache({layers: 1, keyValueHeads, headDim});
      const output = tf.tidy(() => {
        cache.extend(0, rows(key, 0, rest), rows(value, 0, rest));
        let last: tf.Tensor4D;
        for (let at = rest; at < rest + written; ++at) {
          last = decodeAttention(query, cache.append(0, rows(key, at, 1), rows(value, at, 1), window));
        }
        return last!;
      });
      expect(cache.length).to.equal(rest + written);
      const expected = composedAttention(query, rows(key, 0, rest + written), rows(value, 0, rest + written), window);
      const [got, wanted] = await Promise.all([output.data(), expected.data()]);
      expect(Math.max(...got.map((x, i) => Math.abs(x - wanted[i])))).to.be.lessThan(1e-5);
      tf.dispose([key, value, query, output, expected]);
      cache.dispose();
    });
  }
});
