import {dispose, getBackend, grad, memory, setBackend, slice, sum, tensor, tidy} from '@tensorflow/tfjs-core';
import type {Tensor4D} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {attentionWithLogSumExp, flashAttention, mergeAttention, packFloat16, pbsAttention} from '../../src/index';
import {AttendDecodeProgram} from '../../src/kernels/webgpu/attend/attend_decode';
import {randomInputs, tensors, type RectangularShape} from '../reference/attention';
import {describeAllBackends} from '../setup/environment';

const takesPacked = () => ['cpu', 'webgpu'].includes(getBackend());

/** Values that float16 has, so that a packed cache holds what a float32 one does. */
function roundedTensors(shape: RectangularShape, seed: number): [Tensor4D, Tensor4D, Tensor4D] {
  const inputs = randomInputs(shape, seed);
  const round = (values: Float32Array) => values.map((x) => Math.round(x * 256) / 256);
  return tensors({...inputs, key: round(inputs.key), value: round(inputs.value)});
}

describeAllBackends('packed float16', (backend) => {
  before(() => setBackend(backend));

  it('is two float16 a word, the first in the low half, rounded and saturated', async function () {
    if (!takesPacked()) this.skip();
    const numbers: Array<[number, number]> = [
      ...([
        [1, 0x3c00],
        [-2, 0xc000],
        [0, 0],
        [-0, 0x8000],
        [65504, 0x7bff],
        [1e9, 0x7bff],
        [-65519, 0xfbff],
      ] as const),
      // Ties, to even; the smallest normal number, and those below.
      ...([
        [1 + 2 ** -11, 0x3c00],
        [1 + 3 * 2 ** -11, 0x3c02],
        [2 ** -14, 0x0400],
        [2 ** -24, 0x0001],
        [2 ** -15, 0x0200],
      ] as const),
      ...([
        [0.1, 0x2e66],
        [1.9999, 0x4000],
        [Infinity, 0x7c00],
        [-Infinity, 0xfc00],
      ] as const),
    ].map(([x, bits]) => [x, bits]);
    const x = tensor(
      numbers.map(([value]) => value),
      [2, 8],
    );
    const words = packFloat16(x);
    expect([words.dtype, ...words.shape]).to.deep.equal(['int32', 2, 4]);
    const halves = Array.from(await words.data()).flatMap((word) => [word & 0xffff, word >>> 16]);
    expect(halves.map((bits) => bits.toString(16))).to.deep.equal(numbers.map(([, bits]) => bits.toString(16)));
    dispose([x, words]);
  });

  // A prompt; decoding, by vectors of words and by single ones; both again with values of another dim.
  const shapes: RectangularShape[] = [
    {heads: 2, length: 40, headDim: 8},
    {heads: 2, keyValueHeads: 1, length: 1, keyLength: 600, headDim: 16, valueDim: 8},
    {heads: 1, length: 2, keyLength: 520, headDim: 12, valueDim: 6},
  ];
  for (const shape of shapes) {
    it(`gives what its values give: ${JSON.stringify(shape)}`, async function () {
      if (!takesPacked()) this.skip();
      const [q, k, v] = roundedTensors(shape, 3);
      const packed = [packFloat16(k), packFloat16(v)] as [Tensor4D, Tensor4D];
      const {run} = AttendDecodeProgram.prototype;
      const keys: string[] = [];
      AttendDecodeProgram.prototype.run = function (on) {
        keys.push(this.spec.inputs.key.tensor.dtype);
        return run.call(this, on);
      };
      const before = memory().numTensors;
      const [exact, got] = [flashAttention(q, k, v), flashAttention(q, ...packed)];
      AttendDecodeProgram.prototype.run = run;
      // Read as they are where they are read once.
      const decoded = backend === 'webgpu' && shape.keyLength ? ['float32', 'int32'] : [];
      expect(keys).to.deep.equal(decoded);
      expect(memory().numTensors).to.equal(before + 2);
      const [expected, actual] = await Promise.all([exact.data(), got.data()]);
      actual.forEach((x, i) => expect(x, `value ${i}`).to.be.closeTo(expected[i], 1e-6));
      const sizes = {blockSize: 8, keyBlockSize: 8, segmentSize: 16, threshold: 0.5, auto: false};
      const sparse = [pbsAttention(q, k, v, sizes), pbsAttention(q, ...packed, sizes)];
      const [a, b] = await Promise.all(sparse.map((x) => x.data()));
      b.forEach((x, i) => expect(x, `sparse value ${i}`).to.be.closeTo(a[i], 1e-6));
      dispose([q, k, v, packed, exact, got, sparse]);
    });
  }

  it('is the older part of a cache that grows', async function () {
    if (!takesPacked()) this.skip();
    const [q, k, v] = roundedTensors({heads: 1, length: 1, keyLength: 6, headDim: 4}, 5);
    const rows = (x: Tensor4D, first: number, count: number) => slice(x, [0, 0, first, 0], [1, 1, count, 4]);
    const whole = flashAttention(q, k, v);
    const merged = tidy(() => {
      const old = [k, v].map((x) => packFloat16(rows(x, 0, 4)));
      const parts = [old, [rows(k, 4, 2), rows(v, 4, 2)]].map(([key, value]) =>
        attentionWithLogSumExp(q, key, value, {causal: false}),
      );
      return mergeAttention(parts).output;
    });
    const [expected, got] = await Promise.all([whole.data(), merged.data()]);
    got.forEach((x, i) => expect(x, `value ${i}`).to.be.closeTo(expected[i], 1e-6));
    dispose([q, k, v, whole, merged]);
  });

  it('is refused where it does not fit, and has no gradient', () => {
    const [q, k, v] = roundedTensors({heads: 1, length: 4, headDim: 8}, 6);
    if (!takesPacked()) {
      expect(() => packFloat16(k)).to.throw(`packFloat16: x: got packed float16 on ${backend}`);
      return;
    }
    const packed = packFloat16(k);
    const odd = slice(k, [0, 0, 0, 0], [1, 1, 4, 7]);
    expect(() => packFloat16(odd)).to.throw('packFloat16: x: got float32 [1,1,4,7]');
    expect(() => packFloat16(packed)).to.throw('packFloat16: x: got int32 [1,1,4,4]');
    expect(() => flashAttention(q, packed, v)).to.throw('flashAttention: value: got float32 with a key of int32');
    const loss = grad((x) => sum(flashAttention(x as Tensor4D, packed, packed)));
    expect(() => loss(q)).to.throw('key: got packed float16; takes float32');
    expect(() => flashAttention(q, packed, packed, {keyStarts: [1]})).to.throw(
      'key: got packed float16 with positions',
    );
    dispose([q, k, v, packed, odd]);
  });
});
