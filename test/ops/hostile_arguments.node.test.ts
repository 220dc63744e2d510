import type {Tensor4D} from '@tensorflow/tfjs-core';
import {dispose, memory, ones, setBackend, tensor1d, tidy} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import * as library from '../../src/index';

/* Whatever stands in the place of an argument: it is taken, or refused by an error that names the op and stays short. */

const {collectAttentionSamples, flashAttention, pbsAttention, pbsAttentionDensity, pbsAttentionPlan, tunePBSAttention} =
  library;
type Anything = (...args: unknown[]) => unknown;
const ops = library as unknown as Record<string, Anything>;
const long = 'x'.repeat(6_000_000);

describe('hostile arguments', () => {
  before(() => setBackend('cpu'));

  const tensor = () => ones([1, 2, 20, 4]) as Tensor4D;
  const sizes = {blockSize: 4, keyBlockSize: 2, segmentSize: 4, auto: false};

  async function errorOf(call: () => unknown): Promise<unknown> {
    try {
      const result = await call();
      if (typeof result === 'object') dispose(result as Tensor4D);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Values by what they are, made anew for each call. */
  const values: Record<string, () => unknown> = {
    null: () => null,
    undefined: () => undefined,
    zero: () => 0,
    'a share': () => 0.9,
    NaN: () => NaN,
    'an empty string': () => '',
    'a long string': () => long,
    true: () => true,
    'a symbol': () => Symbol('s'),
    'a bigint': () => 10n,
    'an empty array': () => [],
    'an array with holes': () => new Array(1),
    'an array of strings': () => [long],
    'a function': () => () => 1,
    'an empty object': () => ({}),
    'an object of a long name': () => ({[long]: 1}),
    'an object without a prototype': () => Object.create(null),
    'a typed array': () => new Int32Array(3),
    'a tensor': () => tensor1d([1]),
    'half a plan': () => ({keyIndices: tensor1d([1]), blockMask: null}),
    'a disposed plan': () => {
      const plan = pbsAttentionPlan(tensor(), tensor(), sizes);
      dispose(plan);
      return plan;
    },
  };

  const options =
    'keyLengths queryOffset scale causal precision threshold blockSize keyBlockSize segmentSize estimate permute auto causalSafe';
  const calls: Record<string, (x: unknown) => unknown> = {};
  for (const op of ['flashAttention', 'pbsAttention']) {
    calls[`${op}, query`] = (x) => ops[op](x, tensor(), tensor());
    calls[`${op}, key`] = (x) => ops[op](tensor(), x, tensor());
    calls[`${op}, value`] = (x) => ops[op](tensor(), tensor(), x);
    calls[`${op}, options`] = (x) => ops[op](tensor(), tensor(), tensor(), x);
  }
  for (const name of options.split(' ').concat('plan', 'onReport', 'mask')) {
    calls[`pbsAttention, ${name}`] = (x) => ops.pbsAttention(tensor(), tensor(), tensor(), {...sizes, [name]: x});
  }
  calls['flashAttention, mask'] = (x) => ops.flashAttention(tensor(), tensor(), tensor(), {mask: x});
  calls['pbsAttentionPlan, key'] = (x) => ops.pbsAttentionPlan(tensor(), x);
  calls['pbsAttentionPlan, options'] = (x) => ops.pbsAttentionPlan(tensor(), tensor(), x);
  const planned = (use: (plan: library.PBSAttentionPlan, x: unknown) => unknown) => (x: unknown) =>
    use(pbsAttentionPlan(tensor(), tensor(), sizes), x);
  calls['extendPBSAttentionPlan, plan'] = (x) => ops.extendPBSAttentionPlan(x, tensor(), tensor());
  calls['extendPBSAttentionPlan, query'] = planned((plan, x) => ops.extendPBSAttentionPlan(plan, x, tensor()));
  calls['extendPBSAttentionPlan, options'] = planned((plan, x) =>
    ops.extendPBSAttentionPlan(plan, tensor(), tensor(), x),
  );
  calls['pbsAttentionDensity, plan'] = (x) => ops.pbsAttentionDensity(x);
  calls['pbsAttentionDensity, options'] = planned((plan, x) => ops.pbsAttentionDensity(plan, x));
  const sample = () => ({query: tensor(), key: tensor(), value: tensor()});
  calls['tunePBSAttention, samples'] = (x) => ops.tunePBSAttention(x, {maxRelativeL1: 0.1});
  calls['tunePBSAttention, a sample'] = (x) => ops.tunePBSAttention([x], {maxRelativeL1: 0.1});
  calls['tunePBSAttention, target'] = (x) => ops.tunePBSAttention([sample()], x);
  calls['tunePBSAttention, options'] = (x) => ops.tunePBSAttention([sample()], {maxRelativeL1: 0.1}, x);
  calls['collectAttentionSamples, query'] = (x) =>
    (collectAttentionSamples().attention as Anything)(x, tensor(), tensor());
  calls['collectAttentionSamples, options'] = (x) =>
    (collectAttentionSamples().attention as Anything)(tensor(), tensor(), tensor(), x);

  for (const [name, call] of Object.entries(calls)) {
    it(`takes or refuses anything: ${name}`, async () => {
      for (const [what, make] of Object.entries(values)) {
        const error = await errorOf(() => call(make()));
        if (error === undefined) continue;
        expect(error, what).to.be.instanceOf(Error);
        const {message, constructor} = error as Error;
        expect(constructor, `${what}: ${message.slice(0, 300)}`).to.equal(Error);
        expect(message, what).to.match(/^(flash|pbs|extend|tune|collect)\w*: \w+: got/);
        expect(message.length, what).to.be.below(600);
      }
    });
  }

  const wrong: Array<[string, () => unknown, RegExp]> = [
    [
      'a number as options',
      () => ops.pbsAttention(tensor(), tensor(), tensor(), 0.9),
      /options: got 0.9; takes an obj/,
    ],
    ['an array as options', () => ops.flashAttention(tensor(), tensor(), tensor(), []), /options: got Array; takes an/],
    [
      'options that are none, beside a plan of sizes',
      planned((plan, x) => ops.extendPBSAttentionPlan(plan, tensor(), tensor(), x ?? 3)) as () => unknown,
      /options: got 3; takes an object/,
    ],
    [
      'holes in key lengths',
      () => flashAttention(tensor(), tensor(), tensor(), {keyLengths: new Array(1) as number[]}),
      /keyLengths: got \[\]; takes 1 integers/,
    ],
    ['a disposed plan', () => pbsAttentionDensity(values['a disposed plan']() as never), /plan: got a disposed one/],
    [
      'a disposed plan to attend by',
      () => pbsAttention(tensor(), tensor(), tensor(), {plan: values['a disposed plan']() as never}),
      /plan: got a disposed tensor/,
    ],
    ['samples of a disposed collector', () => tunePBSAttention(disposed(), {maxRelativeL1: 0.1}), /samples: got none/],
  ];
  function disposed() {
    const collector = collectAttentionSamples();
    collector.attention(tensor(), tensor(), tensor());
    collector.dispose();
    return collector.samples;
  }
  for (const [name, call, message] of wrong) {
    it(`says what is wrong: ${name}`, async () => {
      expect(await errorOf(call))
        .to.be.instanceOf(Error)
        .with.property('message')
        .match(message);
    });
  }

  it('takes blocks of 512 queries without other sizes, and key lengths as an Int32Array', async () => {
    const q = tensor();
    const output = pbsAttention(q, q, q, {blockSize: 512, auto: false});
    const padded = flashAttention(q, q, q, {keyLengths: new Int32Array([7])});
    const expected = flashAttention(q, q, q, {keyLengths: [7]});
    expect(output.shape).to.deep.equal([1, 2, 20, 4]);
    expect(Array.from(await padded.data())).to.deep.equal(Array.from(await expected.data()));
  });

  it('gives plans that tidy keeps and dispose frees', () => {
    const q = tensor();
    const before = memory().numTensors;
    const plan = tidy(() => pbsAttentionPlan(q, q, sizes));
    expect(memory().numTensors).to.equal(before + 2);
    dispose(plan);
    expect(memory().numTensors).to.equal(before);
  });
});
