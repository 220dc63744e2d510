import {concat, dispose, setBackend, slice, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {FlashAttentionOptions} from '../../../../src/index';
import {attentionWithLogSumExp, flashAttention} from '../../../../src/index';
import {AttendScoresProgram} from '../../../../src/kernels/webgl/attend/attend_passes';
import {relativeL1} from '../../../golden/golden_cases';
import {randomInputs, tensors, type RectangularShape} from '../../../reference/attention';
import {testBackends} from '../../../setup/environment';

/** With the groups of four rows that walk over keys: of heads that share keys together, where nothing of them differs. */
const cases: Array<[name: string, shape: RectangularShape, options: () => FlashAttentionOptions, groups: number]> = [
  ['a token, seven heads on one', {heads: 14, keyValueHeads: 2, length: 1, keyLength: 300, headDim: 20}, () => ({}), 4],
  [
    'two rows, odd head dims, no causal mask',
    {batch: 2, heads: 3, length: 2, keyLength: 263, headDim: 10, valueDim: 7},
    () => ({causal: false}),
    6,
  ],
  [
    'three rows of two heads on one, window, soft cap, key lengths',
    {batch: 2, heads: 4, keyValueHeads: 2, length: 3, keyLength: 290, headDim: 12},
    () => ({queryOffset: 280, window: 150, softCap: 0.7, keyLengths: [281, 77]}),
    8,
  ],
  [
    'heads on one with slopes, sinks and masks of their own',
    {heads: 2, keyValueHeads: 1, length: 2, keyLength: 200, headDim: 16},
    () => ({alibiSlopes: [0.0625, 0.25], sinks: [-1.5, 1], mask: tensor4d([0.3, -1], [1, 2, 1, 1])}),
    2,
  ],
  ['sixteen rows of a key head', {heads: 8, keyValueHeads: 1, length: 2, keyLength: 150, headDim: 8}, () => ({}), 4],
];

if (testBackends().includes('webgl')) {
  describe('attention of few query rows [webgl]', () => {
    const scores = AttendScoresProgram.prototype;
    const {drawInto} = scores;
    let groups = 0;
    before(async () => {
      await setBackend('webgl');
      scores.drawInto = function (...args) {
        groups += args[4]! - args[3]!;
        return drawInto.apply(this, args);
      };
    });
    beforeEach(() => (groups = 0));
    after(() => void (scores.drawInto = drawInto));

    for (const [name, shape, options, expectedGroups] of cases) {
      it(`is that of the CPU: ${name}`, async () => {
        const inputs = randomInputs(shape, 9);
        const onBackend = async (backend: string) => {
          await setBackend(backend);
          return flashAttention(...tensors(inputs), options()).data();
        };
        const expected = await onBackend('cpu');
        expect(relativeL1(await onBackend('webgl'), expected)).to.be.below(1e-5);
        expect(groups).to.equal(expectedGroups);
      });
    }

    it('takes keys and values that are packed, or parts of others', async () => {
      const shape = {heads: 2, keyValueHeads: 1, length: 1, keyLength: 96, headDim: 6};
      const [q, k, v] = tensors(randomInputs(shape, 5));
      const expected = await flashAttention(q, k, v).data();
      // What concat and slice of tfjs make: two by two values a texel, and a view with an offset.
      const joined = concat([k, v], 2);
      const key = slice(joined, [0, 0, 0, 0], [1, 1, 96, 6]);
      const value = slice(joined, [0, 0, 96, 0], [1, 1, 96, 6]);
      const got = await flashAttention(q, key, value).data();
      expect(relativeL1(got, expected)).to.be.below(1e-6);
      dispose([q, k, v, joined, key, value]);
    });

    it('keeps what is not finite from rows that do not see it, and gives it to those that do', async () => {
      const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 2, keyLength: 60, headDim: 8}, 4);
      inputs.value[59 * 8 + 1] = NaN;
      inputs.key[59 * 8] = NaN;
      inputs.value[30 * 8 + 2] = Infinity;
      const values = await flashAttention(...tensors(inputs)).data();
      values.forEach((x, i) => expect(Number.isFinite(x), `value ${i}`).to.equal(i % 16 < 8 && i % 8 !== 2));
      expect(values[2]).to.equal(Infinity);
    });

    it('hands on the logarithm of its sums', async () => {
      const inputs = randomInputs({heads: 6, keyValueHeads: 2, length: 2, keyLength: 70, headDim: 8}, 4);
      const onBackend = async (backend: string) => {
        await setBackend(backend);
        return attentionWithLogSumExp(...tensors(inputs)).logSumExp.data();
      };
      const expected = await onBackend('cpu');
      (await onBackend('webgl')).forEach((x, i) => expect(x).to.be.closeTo(expected[i], 1e-5));
    });
  });
}
