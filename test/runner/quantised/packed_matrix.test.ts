import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {BLOCK_TYPES} from '../../../runner/gguf/block_types';
import {isQuantised, QUANTISED_TYPES, type QuantisedType} from '../../../runner/gguf/block_values';
import {PackedMatrix} from '../../../runner/quantised/packed_matrix';
import {MOST_ROWS} from '../../../runner/quantised/ops';
import {packBlocks} from '../../../runner/quantised/packing';
import {testBackends} from '../../setup/environment';
import {type BlocksReference, readBlocksReference} from '../gguf/references';

/** Random bytes and edge cases, and their values by ggml. */
interface Blocks extends BlocksReference {
  type: QuantisedType;
  values: number[];
}

/** A matrix whose blocks are taken from those in turn, and its values. */
function matrixOf({type, raw, values}: Blocks, outputs: number, blocksOfRow: number) {
  const {values: blockValues, bytes: blockBytes} = BLOCK_TYPES[type];
  const count = values.length / blockValues;
  const bytes = new Uint8Array(outputs * blocksOfRow * blockBytes);
  const dense = new Float32Array(outputs * blocksOfRow * blockValues);
  for (let i = 0; i < outputs * blocksOfRow; ++i) {
    const from = (i + Math.floor(i / count)) % count;
    bytes.set(raw.slice(from * blockBytes, (from + 1) * blockBytes), i * blockBytes);
    dense.set(values.slice(from * blockValues, (from + 1) * blockValues), i * blockValues);
  }
  return {bytes, dense, inputs: blocksOfRow * blockValues};
}

describe('packed matrices', () => {
  let all: Blocks[];
  before(async () => {
    const isPacked = (block: BlocksReference): block is Blocks => isQuantised(block.type);
    all = (await readBlocksReference()).filter(({of}) => of.startsWith('synthetic')).filter(isPacked);
  });

  it('have blocks for every type that is packed', () => {
    expect(all.map(({type}) => type)).to.have.members([...QUANTISED_TYPES]);
    for (const {type, raw, values} of all) {
      const block = BLOCK_TYPES[type];
      expect(raw.length / block.bytes, type).to.equal(values.length / block.values);
    }
  });

  it('take as many words as their bits and scales say', () => {
    for (const blocks of all) {
      const {bytes, inputs} = matrixOf(blocks, 3, 2);
      const {quants, scales} = packBlocks(blocks.type, bytes);
      const bits = Number(/\d/.exec(blocks.type)![0]);
      expect(quants.length, blocks.type).to.equal((3 * inputs * bits) / 32);
      expect(scales.length, blocks.type).to.equal(((3 * inputs) / 32) * (blocks.type.endsWith('K') ? 2 : 1));
    }
  });

  if (!testBackends().includes('webgpu')) return;

  for (const type of QUANTISED_TYPES) {
    it(`${type}: products of few rows and of many, and rows, by parts too [webgpu]`, async () => {
      await tf.setBackend('webgpu');
      const blocks = all.find((of) => of.type === type)!;
      const outputs = 37;
      const {bytes, dense, inputs} = matrixOf(blocks, outputs, type.endsWith('K') ? 2 : 11);
      const before = tf.memory().numTensors;
      const bytesOfRow = bytes.length / outputs;
      const read = (first: number, end: number) => Promise.resolve(bytes.slice(first * bytesOfRow, end * bytesOfRow));
      // All rows in one part, and at most 10 in each.
      for (const mostBytes of [2 ** 27, 10 * 4 * inputs + 1]) {
        const matrix = await PackedMatrix.upload(type, [outputs, inputs], read, mostBytes);
        const largest = dense.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
        const ids = [36, 0, 9, 10, 36, 20];
        const rows = matrix.rows(ids);
        const got = await rows.data();
        rows.dispose();
        ids.forEach((id, i) => {
          for (let j = 0; j < inputs; ++j) {
            expect(Math.abs(got[i * inputs + j] - dense[id * inputs + j])).to.be.at.most(1e-6 * largest);
          }
        });
        for (const count of [1, 3, MOST_ROWS, MOST_ROWS + 1]) {
          const x = tf.randomNormal([count, inputs], 0, 1, 'float32', count) as tf.Tensor2D;
          const product = matrix.multiply(x);
          const [actual, factors] = [await product.data(), await x.data()];
          tf.dispose([x, product]);
          for (let r = 0; r < count; ++r) {
            for (let o = 0; o < outputs; ++o) {
              let sum = 0;
              let size = 0;
              for (let j = 0; j < inputs; ++j) {
                const term = factors[r * inputs + j] * dense[o * inputs + j];
                sum += term;
                size += Math.abs(term);
              }
              expect(Math.abs(actual[r * outputs + o] - sum), `${count} rows, [${r}, ${o}]`).to.be.at.most(2e-6 * size);
            }
          }
        }
        expect(matrix.bytes).to.be.within(bytes.length, 1.4 * bytes.length);
        matrix.dispose();
      }
      expect(tf.memory().numTensors).to.equal(before);
    });
  }
});
