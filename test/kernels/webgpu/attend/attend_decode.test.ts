import {dispose, setBackend, slice, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {FlashAttentionOptions} from '../../../../src/index';
import {attentionWithLogSumExp, flashAttention} from '../../../../src/index';
import {AttendDecodeProgram} from '../../../../src/kernels/webgpu/attend/attend_decode';
import {relativeL1} from '../../../golden/golden_cases';
import {randomInputs, tensors, type RectangularShape} from '../../../reference/attention';
import {testBackends} from '../../../setup/environment';

/** Teams of 4, 8, 16 and 64 invocations, none of them all at work but those of 16; one to eight rows; chunks that end within a tile. */
const cases: Array<[name: string, shape: RectangularShape, options: () => FlashAttentionOptions]> = [
  [
    'a token, values of another dim, no causal mask',
    {heads: 2, length: 1, keyLength: 700, headDim: 10, valueDim: 6},
    () => ({causal: false}),
  ],
  ['three heads on one, head dim 20', {heads: 3, keyValueHeads: 1, length: 1, keyLength: 530, headDim: 20}, () => ({})],
  ['seven heads on one, as of Qwen', {heads: 14, keyValueHeads: 2, length: 1, keyLength: 777, headDim: 64}, () => ({})],
  [
    'five rows, values of few dims',
    {heads: 2, length: 5, keyLength: 520, headDim: 12, valueDim: 5},
    () => ({queryOffset: 514}),
  ],
  [
    'every form at once',
    {batch: 2, heads: 2, keyValueHeads: 1, length: 2, keyLength: 640, headDim: 132},
    () => ({
      ...{queryOffset: 630, scale: 0.5, keyLengths: [632, 101], window: 590, softCap: 0.7},
      ...{alibiSlopes: [0.0625, 0.004], sinks: [-1.5, -2.5], mask: tensor4d([0.3, -1, 2, -0.5], [2, 2, 1, 1])},
    }),
  ],
];

if (testBackends().includes('webgpu')) {
  describe('attention of few query rows [webgpu]', () => {
    const {run} = AttendDecodeProgram.prototype;
    let runs = 0;
    before(async () => {
      await setBackend('webgpu');
      AttendDecodeProgram.prototype.run = function (backend) {
        ++runs;
        return run.call(this, backend);
      };
    });
    beforeEach(() => (runs = 0));
    afterEach(() => expect(runs).to.be.above(0));
    after(() => void (AttendDecodeProgram.prototype.run = run));

    for (const [name, shape, options] of cases) {
      it(`is that of the CPU: ${name}`, async () => {
        const inputs = randomInputs(shape, 9);
        const onBackend = async (backend: string) => {
          await setBackend(backend);
          const output = flashAttention(...tensors(inputs), options());
          return output.data();
        };
        const expected = await onBackend('cpu');
        expect(relativeL1(await onBackend('webgpu'), expected)).to.be.below(1e-5);
      });
    }

    it('keeps what is not finite from rows that do not see it, and gives it to those that do', async () => {
      const inputs = randomInputs({heads: 1, length: 2, keyLength: 600, headDim: 8}, 4);
      inputs.value[599 * 8 + 1] = NaN;
      inputs.key[599 * 8] = NaN;
      inputs.value[30 * 8 + 2] = Infinity;
      const [q, k, v] = tensors(inputs);
      const got = flashAttention(q, k, v);
      const values = await got.data();
      values.forEach((x, i) => expect(Number.isFinite(x), `value ${i}`).to.equal(i < 8 && i % 8 !== 2));
      expect(values[2]).to.equal(Infinity);
      dispose([q, k, v, got]);
    });

    it('hands on the logarithm of its sums', async () => {
      const [q, k, v] = tensors(randomInputs({heads: 2, length: 1, keyLength: 600, headDim: 8}, 4));
      const {output, logSumExp} = attentionWithLogSumExp(q, k, v);
      const half = (first: number) => {
        const part = (x: typeof k) => slice(x, [0, 0, first, 0], [1, 2, 300, 8]);
        return attentionWithLogSumExp(q, part(k), part(v), {causal: false});
      };
      const sums = await Promise.all([half(0), half(300)].map((x) => x.logSumExp.data()));
      (await logSumExp.data()).forEach((x, i) =>
        expect(x).to.be.closeTo(Math.log(Math.exp(sums[0][i]) + Math.exp(sums[1][i])), 1e-4),
      );
      dispose([q, k, v, output, logSumExp]);
    });
  });
}
