import type {Tensor4D} from '@tensorflow/tfjs-core';
import {clone, dispose, grad, memory, setBackend, square, sum, tensor, tidy} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {extendPBSAttentionPlan, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {randomInputs, tensors} from '../reference/attention';
import {relativeL1} from '../golden/golden_cases';
import {describeAllBackends} from '../setup/environment';

const cut = {blockSize: 16, keyBlockSize: 16, segmentSize: 32, auto: false, threshold: 0.7};

/** Plans that do not fit what they are used for: issue K, 1, 3 and 9. */
describeAllBackends('plans that do not fit', (backend) => {
  let [query, key, value]: Tensor4D[] = [];
  let before: number;
  beforeEach(async () => {
    await setBackend(backend);
    before = memory().numTensors;
    [query, key, value] = tensors(randomInputs({batch: 2, heads: 2, keyValueHeads: 1, length: 96, headDim: 16}, 5));
  });
  afterEach(() => {
    dispose([query, key, value]);
    expect(memory().numTensors, 'tensors left behind').to.equal(before);
  });

  it('hold for the key lengths that they were made with, and refuse others', async () => {
    const keyLengths = [70, 96];
    const plan = pbsAttentionPlan(query, key, {...cut, keyLengths});
    expect(plan.sizes!.keyLengths).to.deep.equal(keyLengths);
    const given = pbsAttention(query, key, value, {plan, keyLengths: Int32Array.from(keyLengths)});
    const taken = pbsAttention(query, key, value, {plan});
    const own = pbsAttention(query, key, value, {...cut, keyLengths});
    const [a, b, c] = await Promise.all([given, taken, own].map((x) => x.data()));
    expect([...b]).to.deep.equal([...a]);
    expect(relativeL1(b, c)).to.be.below(1e-5);
    expect(() => pbsAttention(query, key, value, {plan, keyLengths: [70, 95]})).to.throw(
      'pbsAttention: keyLengths: got [70,95] with a plan of [70,96]; takes those that the plan was made with, also where they are not given.',
    );
    dispose([given, taken, own, plan.keyIndices, plan.blockMask]);
  });

  it('are not extended by options that mean nothing', () => {
    const plan = pbsAttentionPlan(query, key, cut);
    const extend = (options: object) => () => extendPBSAttentionPlan(plan, query, key, options);
    expect(extend({keyLengths: [1, 2]})).to.throw(/options: got 'keyLengths'; takes/);
    expect(extend({threshold: 2})).to.throw(/threshold: got 2; takes a number from 0 to 1/);
    expect(extend({precision: 'float64'})).to.throw(/precision: got 'float64'/);
    dispose(plan);
  });

  it('are freed and kept by tfjs as they are', () => {
    const plan = tidy(() => pbsAttentionPlan(query, key, cut));
    expect(plan.keyIndices.isDisposed).to.equal(false);
    dispose(plan);
  });

  it('of keys that do not exist read the nearest ones, alike on each backend', async () => {
    const plan = pbsAttentionPlan(query, key, cut);
    const indices = Array.from(await plan.keyIndices.data());
    const [low, high] = [-5, 2 ** 31 - 1];
    const wild = indices.map((index, i) => (i % 7 === 3 ? low : i % 7 === 5 ? high : index));
    const clamped = wild.map((index) => Math.min(95, Math.max(0, index)));
    const by = (values: number[]) => ({
      ...plan,
      keyIndices: tensor(values, plan.keyIndices.shape, 'int32') as typeof plan.keyIndices,
    });
    const [wildPlan, clampedPlan] = [by(wild), by(clamped)];
    const outputs = [wildPlan, clampedPlan].map((used) => pbsAttention(query, key, value, {plan: used}));
    const [got, expected] = await Promise.all(outputs.map((x) => x.data()));
    expect([...got]).to.deep.equal([...expected]);
    expect(got.every(Number.isFinite)).to.equal(true);
    dispose([outputs, plan, wildPlan.keyIndices, clampedPlan.keyIndices]);
  });

  it('of blocks far longer than the query have gradients, as those of one block', async () => {
    const blockSize = 2 ** 31 - 1;
    const [long, short] = [blockSize, 96].map((size) => ({...cut, blockSize: size, threshold: 1}));
    const gradients = [long, short].map((options) => {
      const plan = pbsAttentionPlan(query, key, options);
      const gradient = grad((x) => sum(square(pbsAttention(x as Tensor4D, key, value, {plan}))))(query);
      dispose(plan);
      return gradient;
    });
    const [got, expected] = await Promise.all(gradients.map((x) => x.data()));
    expect(relativeL1(got, expected)).to.be.below(1e-5);
    dispose(gradients);
  });

  it('know their key order again through a clone', async () => {
    const plan = pbsAttentionPlan(query, key, cut);
    const same = {...plan, keyIndices: clone(plan.keyIndices)};
    const outputs = [plan, same].map((used) => pbsAttention(query, key, value, {plan: used}));
    const [a, b] = await Promise.all(outputs.map((x) => x.data()));
    expect([...a]).to.deep.equal([...b]);
    dispose([outputs, plan, same.keyIndices]);
  });
});
