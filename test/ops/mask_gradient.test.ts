import type {Tensor4D} from '@tensorflow/tfjs-core';
import {add, dispose, memory, mul, setBackend, sum, tensor3d, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {maskGradient} from '../../src/attention/mask_gradient';
import {attentionWithLogSumExp} from '../../src/index';
import {maskTensor, randomInputs, tensors} from '../reference/attention';
import type {MaskValues} from '../reference/attention';
import {grads4D} from '../reference/attention_gradients';
import type {OracleOptions} from '../reference/attention_oracle';
import {oracleGradients} from '../reference/attention_oracle';
import {difference} from '../reference/difference';
import {flashOptions} from '../reference/random_forms';
import {describeBackends} from '../setup/environment';

const [batch, heads, length, keyLength, valueDim] = [2, 4, 7, 12, 6];

/** Values from -1 to 1; a few hide their key. */
function addedMask(shape: MaskValues['shape']): MaskValues {
  const count = shape.reduce((a, b) => a * b, 1);
  const values = Array.from({length: count}, (_, i) => (i % 11 === 3 ? -Infinity : Math.fround(Math.sin(7 * i))));
  return {values, shape, dtype: 'float32'};
}

const forms: Array<[MaskValues['shape'], OracleOptions]> = [
  [[batch, heads, length, keyLength], {}],
  [[1, heads, 1, keyLength], {causal: false, softCap: 2, keyLengths: [12, 5]}],
  [[batch, 1, length, 1], {window: 4, sinks: [1, -1, 0, 2], alibiSlopes: [0.5, 0.25, 0.1, 1]}],
  [[1, 1, 1, 1], {causal: false, window: 3, queryOffset: 2}],
  [[1, 1, length, keyLength], {keyLengths: [12, 0], scale: 0.7}],
];

describeBackends('gradient by an added mask', (backend) => {
  before(() => setBackend(backend));

  it('is that of the oracle, whatever the mask broadcasts, through both results', async () => {
    const inputs = randomInputs({batch, heads, keyValueHeads: 2, length, keyLength, headDim: 8, valueDim}, 41);
    const dy = randomInputs({batch, heads, length, headDim: valueDim}, 42).value;
    const dLogSumExp = randomInputs({batch, heads, length, headDim: 1}, 43).value;
    for (const [shape, form] of backend === 'cpu' ? forms : forms.slice(0, 2)) {
      const options = {...form, mask: addedMask(shape)};
      const expected = oracleGradients(inputs, options, dy, dLogSumExp);
      const [q, k, v] = tensors(inputs);
      const mask = maskTensor(options.mask);
      const [dyTensor, dLogTensor] = [
        tensor4d(dy, [batch, heads, length, valueDim]),
        tensor3d(dLogSumExp, [batch, heads, length]),
      ];
      const before = memory().numTensors;
      const loss = (x: Tensor4D) => {
        const part = attentionWithLogSumExp(q, k, v, {...flashOptions({...options, mask: undefined}), mask: x});
        // Rows that see nothing have a logarithm of −Infinity.
        const seen = form.keyLengths ? 0 : mul(dLogTensor, part.logSumExp);
        return add(sum(mul(dyTensor, part.output)), sum(seen)) as Tensor4D;
      };
      const [found] = grads4D(loss)([mask]);
      expect(found.shape).to.deep.equal(shape);
      const {mask: byMask, magnitudes} = form.keyLengths ? oracleGradients(inputs, options, dy) : expected;
      const error = difference(await found.data(), byMask, magnitudes.mask);
      expect(error, `mask [${shape}]`).to.be.below(backend === 'cpu' ? 2e-6 : 2e-5);
      found.dispose();
      expect(memory().numTensors).to.equal(before);
      dispose([q, k, v, mask, dyTensor, dLogTensor]);
    }
  });

  it('is the same in tiles of some rows', async () => {
    const [query, key, value] = tensors(
      randomInputs({batch, heads, keyValueHeads: 2, length, keyLength, headDim: 8}, 44),
    );
    const attrs = {causal: true, scale: 0.3, precision: 'float32', queryOffset: 5} as const;
    for (const [shape] of backend === 'cpu' ? forms : []) {
      const mask = maskTensor(addedMask(shape));
      // What output and its gradient hold does not matter to how rows are cut.
      const inputs = {query, key, value, mask, output: query, dy: query};
      const [whole, cut] = [maskGradient(inputs, attrs), maskGradient(inputs, attrs, 3 * heads * keyLength)];
      expect(cut.shape).to.deep.equal(shape);
      expect(difference(await cut.data(), await whole.data())).to.be.below(1e-5);
      dispose([mask, whole, cut]);
    }
    dispose([query, key, value]);
  });
});
