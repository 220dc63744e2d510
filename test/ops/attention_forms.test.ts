import type {Tensor4D} from '@tensorflow/tfjs-core';
import {dispose, getBackend, memory, setBackend, tensor1d, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {blockGeometry, isExact} from '../../src/attention/block_geometry';
import {permute} from '../../src/kernels/cpu/permute/permute';
import {pbsAttentionAttrs} from '../../src/ops/check_arguments';
import type {Inputs} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';
import {grads4D} from '../reference/attention_gradients';
import type {OracleOptions} from '../reference/attention_oracle';
import {difference} from '../reference/difference';
import {attentionOracle, oracleGradients} from '../reference/attention_oracle';
import {expectSameMasks} from '../reference/block_masks';
import {cpuCall} from '../reference/cpu_call';
import type {PlanValues} from '../reference/plan_values';
import {keptBlocks, planMask, valuesOf} from '../reference/plan_values';
import type {FormCase} from '../reference/random_forms';
import {flashOptions, randomForm} from '../reference/random_forms';
import {describeAllBackends, describeOnCPU, fixture} from '../setup/environment';

/** So many random cases a backend, from seed FORM_SEED on; or in FORM_CASES cases any combination of forms, where there is an environment. */
const environment = (globalThis as {process?: {env: Record<string, string | undefined>}}).process?.env;
const {FORM_CASES, FORM_SEED = 1} = environment ?? {};
const few = FORM_CASES === undefined;
const seeds = (count: number) => Array.from({length: Number(FORM_CASES ?? count)}, (_, i) => Number(FORM_SEED) + i);
const describeCase = (seed: number, {mask, ...form}: {mask?: {shape: number[]}} & Record<string, unknown>) =>
  `FORM_CASES=1 FORM_SEED=${seed}: ${JSON.stringify({...form, mask: mask?.shape})}`;
const names = ['query', 'key', 'value'] as const;
type Attention = (...x: Tensor4D[]) => Tensor4D;

/** Transformers' attention: `attention_forms.py`. */
interface FormsFixture extends Record<'query' | 'key' | 'value' | 'dy', number[]> {
  shapes: Record<(typeof names)[number], [number, number, number, number]>;
  cases: Record<string, {options: OracleOptions; output: number[]; gradients: Record<string, number[]>}>;
}

async function readFixture(): Promise<FormsFixture & {inputs: Inputs}> {
  const bytes = await fixture('test/golden/attention_forms.json');
  const made = JSON.parse(new TextDecoder().decode(bytes)) as FormsFixture;
  const [query, key, value] = names.map((name) => Float32Array.from(made[name]));
  const {query: queryShape, key: keyShape, value: valueShape} = made.shapes;
  return {...made, inputs: {query, key, value, queryShape, keyShape, valueShape}};
}

describeOnCPU('oracle of forms', () => {
  it('is what transformers computes, with its gradients', async () => {
    const {inputs, dy, cases: made} = await readFixture();
    for (const [name, {options, output, gradients}] of Object.entries(made)) {
      // Inputs are read as float32.
      expect(difference(attentionOracle(inputs, options).output, output), name).to.be.below(1e-7);
      const ours = oracleGradients(inputs, options, Float32Array.from(dy));
      names.forEach((of) => expect(difference(ours[of], gradients[of]), `${name}: ${of}`).to.be.below(1e-6));
    }
  });
});

/** No block is kept of which no row of its block of queries sees a key, but for those of the rows' own segments. */
function expectInWindow(
  plan: PlanValues,
  {window, causal = true, queryOffset = 0}: FormCase['options'],
  name: string,
): void {
  if (window === undefined) return;
  const {shape, blockSize, keyBlockSize, queryBlocks} = plan;
  const [batch, heads, queryLength, keyLength] = shape;
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    const first = queryOffset + (row % queryBlocks) * blockSize;
    const last = Math.min(first + blockSize, queryOffset + queryLength) - 1;
    for (const block of keptBlocks(plan, row)) {
      const head = Math.floor(row / queryBlocks);
      const places = Array.from({length: keyBlockSize}, (_, i) => block * keyBlockSize + i).filter(
        (i) => i < keyLength,
      );
      // Segments are whole, so a key's own one can be told by its place.
      const segment = places.map((i) => Math.floor(i / plan.segmentSize));
      const isOwn = causal && segment.some((x) => (x + 1) * plan.segmentSize > first);
      const keys = places.map((i) => plan.keyIndices[head * keyLength + i]);
      const reaches = keys.some((key) => key > first - window && key < last + (causal ? 1 : window));
      expect(isOwn || reaches, `${name}: block ${block} of row ${row}`).to.equal(true);
    }
  }
}

/** Expects the plan that the CPU makes, but where rounding decides: of keys whose scores are as good as equal, and of blocks. */
async function expectPlanOfCPU(inputs: Inputs, options: PBSAttentionOptions, actual: PlanValues, name: string) {
  const backend = getBackend();
  await setBackend('cpu');
  const [q, k, v] = tensors(inputs);
  const {keyIndices, blockMask} = pbsAttentionPlan(q, k, options);
  const [order, mask] = [Array.from(await keyIndices.data()), await blockMask.data()];
  const attrs = pbsAttentionAttrs('test', options, q, k);
  const geometry = blockGeometry(q, k, attrs);
  const {alibiSlopes, keyLengths, softCap} = options as OracleOptions;
  const forms = {
    softCap,
    keyLengths: keyLengths && Int32Array.from(keyLengths),
    alibiSlopes: alibiSlopes && Float32Array.from(alibiSlopes),
  };
  const actualOrder = Array.from(actual.keyIndices);
  if (isExact(geometry, attrs)) {
    expect(actualOrder, `${name}: key order`).to.deep.equal(order);
    expect(Array.from(actual.blockMask), name).to.deep.equal(Array.from(mask));
  } else if (String(actualOrder) === String(order)) {
    expectSameMasks(actual.blockMask, mask, inputs.query, inputs.key, geometry, attrs, forms);
  } else {
    const {keyScores} = permute(cpuCall(inputs, {geometry, ...attrs, ...forms}), attrs);
    const {keyLength, permutedLength, segmentSize} = geometry;
    actualOrder.forEach((key, i) => {
      const [head, place] = [Math.floor(i / keyLength), i % keyLength];
      const scoreOf = (index: number) => keyScores[head * permutedLength + index];
      if (place + 1 < permutedLength && (place + 1) % segmentSize !== 0) {
        expect(scoreOf(actualOrder[i + 1]) - scoreOf(key), `${name}: key order at ${i}`).to.be.below(1e-5);
      }
    });
  }
  dispose([q, k, v, keyIndices, blockMask]);
  await setBackend(backend);
}

describeAllBackends('forms of scores', function (backend) {
  // Where GPUs are software, compiling takes longest.
  const isCPU = backend === 'cpu';
  const tolerance = isCPU ? 1e-6 : 1e-5;

  before(() => setBackend(backend));

  async function expectGradients(
    attention: Attention,
    inputs: Inputs,
    options: OracleOptions,
    seed: number,
    name: string,
  ) {
    const [batch, heads, length] = inputs.queryShape;
    const dy = randomInputs({batch, heads, length, headDim: inputs.valueShape[3]}, seed + 1000).value;
    const expected = oracleGradients(inputs, options, dy);
    const [q, k, v] = tensors(inputs);
    const dyTensor = tensor4d(dy, [batch, heads, length, inputs.valueShape[3]]);
    const found = grads4D(attention)([q, k, v], dyTensor);
    const values = await Promise.all(found.map((x) => x.data()));
    dispose([q, k, v, dyTensor, ...found]);
    names.forEach((of, i) =>
      expect(difference(values[i], expected[of], expected.magnitudes[of]), `${name}, gradient of ${of}`).to.be.below(
        2 * tolerance,
      ),
    );
  }

  it('are those of transformers: gpt-oss, Gemma 2, Mistral, BLOOM', async () => {
    const {inputs, dy, cases: made} = await readFixture();
    for (const [name, {options, output, gradients}] of Object.entries(made)) {
      const [q, k, v] = tensors(inputs);
      const given = flashOptions(options);
      expect(difference(await flashAttention(q, k, v, given).data(), output), name).to.be.below(tolerance);
      if (!isCPU) {
        continue;
      }
      const found = grads4D((...x) => flashAttention(x[0], x[1], x[2], given))(
        [q, k, v],
        tensor4d(dy, inputs.queryShape),
      );
      for (const [i, of] of names.entries()) {
        expect(difference(await found[i].data(), gradients[of]), `${name}: ${of}`).to.be.below(2 * tolerance);
      }
    }
  });

  it('give the same whatever they are given as, and leave no tensors', async () => {
    const inputs = randomInputs({heads: 2, length: 9, headDim: 8}, 5);
    const [q, k, v] = tensors(inputs);
    const [alibiSlopes, sinks] = [
      [0.5, 0.25],
      [1, -1],
    ];
    const before = memory().numTensors;
    const byNumbers = flashAttention(q, k, v, {alibiSlopes, sinks});
    const byTensors = [tensor1d(alibiSlopes), tensor1d(sinks)];
    const same = flashAttention(q, k, v, {alibiSlopes: byTensors[0], sinks: byTensors[1]});
    expect(Array.from(await same.data())).to.deep.equal(Array.from(await byNumbers.data()));
    dispose([byNumbers, same, ...byTensors]);
    expect(memory().numTensors).to.equal(before);
  });

  it('leave rows that see nothing at zeros, with sinks too', async () => {
    const inputs = randomInputs({batch: 2, length: 6, keyLength: 9, headDim: 8}, 6);
    const [q, k, v] = tensors(inputs);
    const options = {keyLengths: [9, 4], window: 2, sinks: [2], softCap: 5, alibiSlopes: [0.5]};
    const output = await flashAttention(q, k, v, options).data();
    // Row i stands at 3 + i; of the second entry's keys, those below 4, only the first two rows see any.
    const empty = output.slice(6 * 8 + 2 * 8);
    expect(Array.from(empty).every((x) => x === 0)).to.equal(true);
    expect(Array.from(output.slice(0, 6 * 8 + 2 * 8)).every((x) => x !== 0)).to.equal(true);
  });

  it('read no tile of keys outside of a window, forward and backward', async () => {
    // Rows stand from 400 on and see keys from 381 on: what is a tile away would leave its NaN in sums.
    const inputs = randomInputs({length: 16, keyLength: 440, headDim: 8}, 8);
    const farFromWindow = (filler: number) => (x: number, i: number) => (i < 256 * 8 ? filler : x);
    const options = {window: 20, queryOffset: 400};
    const [zeros, nans] = [0, NaN].map((filler) => ({
      ...inputs,
      key: inputs.key.map(farFromWindow(filler)),
      value: inputs.value.map(farFromWindow(filler)),
    }));
    for (const causal of [true, false]) {
      const [q, k, v] = tensors(nans);
      const output = await flashAttention(q, k, v, {...options, causal}).data();
      expect(difference(output, attentionOracle(zeros, {...options, causal}).output)).to.be.below(tolerance);
      const dy = randomInputs({length: 16, headDim: 8}, 9).value;
      const expected = oracleGradients(zeros, {...options, causal}, dy);
      const attention: Attention = (...x) => flashAttention(x[0], x[1], x[2], {...options, causal});
      const found = grads4D(attention)([q, k, v], tensor4d(dy, inputs.queryShape));
      for (const [i, of] of names.entries()) {
        expect(difference(await found[i].data(), expected[of]), of).to.be.below(2 * tolerance);
      }
    }
  });

  it('in any combination are the oracle', async function () {
    this.timeout(600_000);
    let worst = 0;
    for (const seed of seeds(isCPU ? 200 : 28)) {
      const {shape, options} = randomForm(seed, {few});
      const inputs = randomInputs(shape, seed);
      const [q, k, v] = tensors(inputs);
      const given = flashOptions(options);
      const output = flashAttention(q, k, v, given);
      const error = difference(await output.data(), attentionOracle(inputs, options).output);
      expect(error, describeCase(seed, {shape, ...options})).to.be.below(tolerance);
      worst = Math.max(worst, error);
      dispose([q, k, v, output, ...(given.mask ? [given.mask] : [])]);
    }
    if (!few) console.log(`largest relative error: ${worst}`);
  });

  it('in float16 are the oracle to the digits of that', async function () {
    this.timeout(600_000);
    for (const seed of seeds(6)) {
      const {shape, options} = randomForm(seed, {few});
      const inputs = randomInputs(shape, seed);
      const [q, k, v] = tensors(inputs);
      const given = flashOptions(options);
      const output = flashAttention(q, k, v, {...given, precision: 'float16'});
      const expected = attentionOracle(inputs, options).output;
      expect(difference(await output.data(), expected), describeCase(seed, {shape, ...options})).to.be.below(5e-3);
      dispose([q, k, v, output, ...(given.mask ? [given.mask] : [])]);
    }
  });

  it('have the gradients of the oracle', async function () {
    this.timeout(600_000);
    for (const seed of seeds(isCPU ? 60 : 7)) {
      const {shape, options} = randomForm(seed, {few});
      const inputs = randomInputs(shape, seed);
      const given = flashOptions(options);
      const attention: Attention = (q, k, v) => flashAttention(q, k, v, given);
      await expectGradients(attention, inputs, options, seed, describeCase(seed, {shape, ...options}));
      given.mask?.dispose();
    }
  });

  it('are those of the blocks of a plan in block-sparse attention, which lie in the window', async function () {
    this.timeout(600_000);
    for (const seed of seeds(isCPU ? 100 : 8)) {
      const {shape, options: all, blocks} = randomForm(seed, {few});
      const options = {...all, mask: undefined};
      const inputs = randomInputs(shape, seed);
      const [q, k, v] = tensors(inputs);
      const sparse = {...options, ...blocks, auto: false};
      const name = describeCase(seed, {shape, ...sparse});
      const plan = pbsAttentionPlan(q, k, sparse);
      const values = await valuesOf(plan);
      // Exact attention has no blocks to choose, and the paper's rule leaves out whole segments.
      const attrs = pbsAttentionAttrs('test', sparse, q, k);
      if (blocks.estimate === 'sampled' && !isExact(blockGeometry(q, k, attrs), attrs)) {
        expectInWindow(values, options, name);
      }
      if (!isCPU) {
        await expectPlanOfCPU(inputs, sparse, values, name);
      }
      const byPlan = {...options, mask: planMask(values)};
      const expected = attentionOracle(inputs, byPlan).output;
      for (const given of [sparse, {...sparse, plan}]) {
        const output = pbsAttention(q, k, v, given);
        expect(difference(await output.data(), expected), name).to.be.below(tolerance);
        output.dispose();
      }
      if (seed % 4 === 0) {
        await expectGradients((...x) => pbsAttention(x[0], x[1], x[2], sparse), inputs, byPlan, seed, name);
      }
      dispose([q, k, v, plan.keyIndices, plan.blockMask]);
    }
  });
});
