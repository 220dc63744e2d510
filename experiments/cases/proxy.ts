import * as tf from '@tensorflow/tfjs-core';
import type {Inputs} from '../../bench/captured_attention';
import type {Experimenter} from '../experimenter';
import {withCaptured} from '../measure/capture';
import {promptSet} from '../prompts/prompt_set';
import type {ProxyRow} from '../results';
import {rankCorrelation} from '../statistics';

/** Query blocks that are compared with the last one, by their place in the prompt. */
const POSITIONS = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.96];

/** How well what the last query block pays predicts what others pay, to the keys of the segments before those. */
export async function proxy(experimenter: Experimenter): Promise<void> {
  const {subject, options} = experimenter;
  const {blockSizes, segmentSizes, lengths, tasks} = options;
  for (const length of lengths) {
    const [prompt] = promptSet(subject.tokenizer, subject.books, tasks[0], length, 1);
    for (let layer = 0; layer < subject.model.config.layers; ++layer) {
      await experimenter.step('proxy', `layer ${layer} ${length}`, async () => {
        const rows = await withCaptured(subject, prompt.ids, [layer], ([inputs]) =>
          compareBlocks(inputs, blockSizes[0], segmentSizes[0]),
        );
        return rows.map((row) => ({length, layer, ...row}));
      });
    }
  }
}

export async function compareBlocks(
  {query, key}: Inputs,
  blockSize: number,
  segmentSize: number,
): Promise<Array<Omit<ProxyRow, 'length' | 'layer'>>> {
  const [, heads, length] = query.shape;
  const rows: Array<Omit<ProxyRow, 'length' | 'layer'>> = [];
  for (const position of POSITIONS) {
    const start = Math.floor((position * length) / blockSize - 1) * blockSize;
    const keys = Math.floor(start / segmentSize) * segmentSize;
    if (start < 0 || keys === 0) continue;
    const [own, last] = await Promise.all(
      [start, length - blockSize].map(async (first) => {
        const mass = keyMass(query, key, first, blockSize, keys);
        const values = (await mass.data()) as Float32Array;
        mass.dispose();
        return values;
      }),
    );
    for (let head = 0; head < heads; ++head) {
      const [a, b] = [own, last].map((mass) => mass.subarray(head * keys, (head + 1) * keys));
      rows.push({
        head,
        position: (start + blockSize) / length,
        rankCorrelation: rankCorrelation(a, b),
        topTenth: shareOfTopTenth(a, b),
      });
    }
  }
  return rows;
}

/** `[heads, keys]`: mean share that rows of a query block pay to each of the first keys, as shares of what they pay to all of these. */
function keyMass(query: tf.Tensor4D, key: tf.Tensor4D, first: number, rows: number, keys: number): tf.Tensor2D {
  return tf.tidy(() => {
    const [, heads, , headDim] = query.shape;
    const keyHeads = key.shape[1];
    const group = heads / keyHeads;
    const queries = tf.reshape(tf.slice(query, [0, 0, first, 0], [1, heads, rows, headDim]), [
      keyHeads,
      group * rows,
      headDim,
    ]);
    const seen = tf.reshape(tf.slice(key, [0, 0, 0, 0], [1, keyHeads, keys, headDim]), [keyHeads, keys, headDim]);
    const weights = tf.softmax(tf.mul(tf.matMul(queries, seen, false, true), 1 / Math.sqrt(headDim)));
    return tf.mean(tf.reshape(weights, [heads, rows, keys]), 1) as tf.Tensor2D;
  });
}

/** Share of `mass` on the tenth of the places where `by` is largest. */
export function shareOfTopTenth(mass: ArrayLike<number>, by: ArrayLike<number>): number {
  const order = Array.from(by, (_, i) => i).sort((i, j) => by[j] - by[i]);
  let [top, total] = [0, 0];
  order.forEach((index, place) => {
    total += mass[index];
    if (place < order.length / 10) top += mass[index];
  });
  return top / total;
}
