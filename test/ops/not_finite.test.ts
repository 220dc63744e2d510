import type {Tensor4D} from '@tensorflow/tfjs-core';
import {memory, setBackend, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {FlashAttentionOptions, PBSAttentionOptions} from '../../src/index';
import {flashAttention, paperOptions, pbsAttention, pbsAttentionPlan} from '../../src/index';
import type {Inputs, MaskValues, RectangularShape} from '../reference/attention';
import {maskTensor, randomInputs, tensors} from '../reference/attention';
import {grads4D} from '../reference/attention_gradients';
import {planMask, valuesOf} from '../reference/plan_values';
import {describeAllBackends} from '../setup/environment';

/*
 * NaN and infinities in query, key and value: what a row does not see cannot matter to it, and what it sees matters alike on
 * every backend.
 */

type Part = 'query' | 'key' | 'value';
/** Rows of a tensor `[batch, heads, length, dim]`, counted through all heads and entries, and what their values become. */
type Planting = Partial<Record<Part, Array<[row: number, x: number]>>>;

/** The inputs with some values replaced: in the columns 1, and 3 of the opposite sign; the others stay. */
function plant(inputs: Inputs, planting: Planting): Inputs {
  const planted = {...inputs};
  for (const part of ['query', 'key', 'value'] as const) {
    planted[part] = inputs[part].slice();
    const dim = inputs[`${part}Shape`][3];
    for (const [row, x] of planting[part] ?? []) {
      planted[part].set([x, inputs[part][row * dim + 2], -x], row * dim + 1);
    }
  }
  return planted;
}

const zeros = (planting: Planting): Planting =>
  Object.fromEntries(Object.entries(planting).map(([part, rows]) => [part, rows.map(([row]) => [row, 0])]));

/** What is finite must be close, infinities the same; where a NaN is expected, anything that is not finite will do. */
function expectSame(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string, tolerance = 1e-4): void {
  expect(actual.length, what).to.equal(expected.length);
  const wrong = Array.from(actual, (x, i) => {
    const y = expected[i];
    if (Number.isNaN(y)) return Number.isFinite(x);
    return Number.isFinite(y) ? !(Math.abs(x - y) <= tolerance * (1 + Math.abs(y))) : x !== y;
  });
  const at = wrong.indexOf(true);
  const count = wrong.filter((x) => x).length;
  expect(count, `${what}: at ${at} got ${actual[at]}, expected ${expected[at]}; values that differ`).to.equal(0);
}

interface Case {
  shape: RectangularShape;
  options: Omit<FlashAttentionOptions, 'mask'> & {mask?: MaskValues};
  planting: Planting;
  /** Query rows, counted through all heads, that see nothing of what was planted. */
  clean: (row: number) => boolean;
  /** Whether gradients are compared, too: shaders of the same form are compiled once, and others take seconds in software. */
  gradients?: boolean;
}

const [nan, infinity] = [NaN, Infinity];
/** Milliseconds in which shaders of gradients are surely compiled, in software on a busy machine too. */
const compiling = 600_000;

/** A bool mask `[1, 1, queryLength, keyLength]` that hides some keys from rows before one. */
const hiding = (queryLength: number, keyLength: number, keys: number[], before: number): MaskValues => ({
  values: Array.from({length: queryLength * keyLength}, (_, i) =>
    Math.floor(i / keyLength) < before && keys.includes(i % keyLength) ? 0 : 1,
  ),
  shape: [1, 1, queryLength, keyLength],
  dtype: 'bool',
});
const additive = ({values, ...mask}: MaskValues): MaskValues => ({
  ...mask,
  values: Array.from(values, (x) => (x ? 0.5 : -Infinity)),
  dtype: 'float32',
});

const cases: Record<string, Case> = {
  'values behind a causal end': {
    shape: {length: 70, headDim: 16},
    options: {},
    planting: {
      value: [
        [37, nan],
        [50, infinity],
        [69, nan],
      ],
    },
    clean: (row) => row < 37,
    gradients: true,
  },
  'keys behind a causal end': {
    shape: {length: 70, headDim: 16},
    options: {},
    planting: {
      key: [
        [41, nan],
        [69, infinity],
      ],
    },
    clean: (row) => row < 41,
    gradients: true,
  },
  'keys and values of grouped heads after a chunk': {
    shape: {batch: 2, heads: 4, keyValueHeads: 2, length: 37, keyLength: 90, headDim: 8, valueDim: 20},
    options: {queryOffset: 20},
    planting: {
      key: [
        [33, infinity],
        [89, nan],
      ],
      value: [
        [90 + 25, infinity],
        [90 + 40, nan],
        [2 * 90 + 80, nan],
      ],
    },
    clean: (row) => (row < 74 ? row % 37 < 13 : row < 148 ? row % 37 < 5 : true),
  },
  'behind key lengths': {
    shape: {batch: 3, heads: 2, length: 30, headDim: 16},
    options: {keyLengths: [17, 30, 0], causal: false},
    planting: {
      key: [
        [17, nan],
        [47, infinity],
        [120, nan],
      ],
      value: [
        [20, infinity],
        [59, nan],
        [130, nan],
      ],
    },
    clean: () => true,
  },
  'behind a bool mask': {
    shape: {heads: 2, length: 20, keyLength: 33, headDim: 16},
    options: {causal: false, mask: hiding(20, 33, [5, 30], 11)},
    planting: {
      key: [[5, nan]],
      value: [
        [30, infinity],
        [33 + 5, nan],
      ],
    },
    clean: (row) => row % 20 < 11,
  },
  'behind an additive mask, and a causal end': {
    shape: {heads: 2, length: 40, headDim: 16},
    options: {mask: additive(hiding(40, 40, [2, 4], 25))},
    planting: {
      key: [[2, infinity]],
      value: [
        [4, nan],
        [40 + 30, infinity],
      ],
    },
    clean: (row) => (row < 40 ? row < 25 : row % 40 < 30),
    gradients: true,
  },
  'outside of a window': {
    shape: {heads: 2, length: 70, headDim: 16},
    options: {window: 9},
    planting: {
      key: [[70 + 40, infinity]],
      value: [
        [58, nan],
        [40, infinity],
      ],
    },
    clean: (row) => (row < 70 ? row < 40 || (row > 48 && row < 58) || row > 66 : row < 110 || row > 118),
  },
  'rows of the query': {
    shape: {heads: 2, length: 40, headDim: 16},
    options: {},
    planting: {
      query: [
        [13, nan],
        [55, infinity],
      ],
    },
    clean: (row) => row !== 13 && row !== 55,
    gradients: true,
  },
  // Few rows over more than 512 keys: WebGPU cuts the keys into chunks.
  'a long cache with keys after the tokens': {
    shape: {heads: 4, keyValueHeads: 2, length: 3, keyLength: 1030, headDim: 8, valueDim: 12},
    options: {queryOffset: 700},
    planting: {
      key: [
        [702, nan],
        [1000, nan],
      ],
      value: [
        [1029, infinity],
        [1030 + 701, infinity],
      ],
    },
    clean: (row) => (row < 6 ? row % 3 < 2 : row % 3 < 1),
  },
  'a long cache of padded entries': {
    shape: {batch: 2, heads: 4, keyValueHeads: 2, length: 1, keyLength: 600, headDim: 8},
    options: {keyLengths: [599, 40]},
    planting: {
      key: [
        [599, nan],
        [1260, nan],
      ],
      value: [
        [599, infinity],
        [1199, nan],
        [1301, nan],
        [1840, nan],
      ],
    },
    clean: () => true,
  },
};

const optionsOf = ({mask, ...options}: Case['options']): FlashAttentionOptions => ({
  ...options,
  ...(mask && {mask: maskTensor(mask)}),
});

async function attend(backend: string, inputs: Inputs, options: Case['options']): Promise<ArrayLike<number>> {
  await setBackend(backend);
  const [q, k, v] = tensors(inputs);
  const given = optionsOf(options);
  const output = flashAttention(q, k, v, given);
  const values = await output.data();
  [q, k, v, output, ...(given.mask ? [given.mask] : [])].forEach((x) => x.dispose());
  return values;
}

/** A gradient by the output, with values planted in it as in a value. */
function outputGradient({queryShape, valueShape}: Inputs, rows: Array<[number, number]> = []): Inputs['value'] {
  const [batch, heads, length] = queryShape;
  const inputs = randomInputs({batch, heads, length, headDim: valueShape[3]}, 99);
  return plant(inputs, {value: rows}).value;
}

async function gradients(
  backend: string,
  inputs: Inputs,
  dy: Float32Array,
  attention: (q: Tensor4D, k: Tensor4D, v: Tensor4D) => Tensor4D,
): Promise<Record<Part, ArrayLike<number>>> {
  await setBackend(backend);
  const given = tensors(inputs);
  const byOutput = tensor4d(dy, [...inputs.queryShape.slice(0, 3), inputs.valueShape[3]] as Inputs['valueShape']);
  const found = grads4D(attention)(given, byOutput);
  const [query, key, value] = await Promise.all(found.map((x) => x.data()));
  [...given, byOutput, ...found].forEach((x) => x.dispose());
  return {query, key, value};
}

const rowsOf = (values: ArrayLike<number>, dim: number, picks: (row: number) => boolean) =>
  Array.from(values).filter((_, i) => picks(Math.floor(i / dim)));

describeAllBackends('values that are not finite', (backend) => {
  before(() => setBackend(backend));
  const seed = 31;

  for (const [name, {shape, options, planting, clean, gradients: withGradients}] of Object.entries(cases)) {
    it(`exact attention: ${name}`, async () => {
      const inputs = randomInputs(shape, seed);
      const dim = inputs.valueShape[3];
      const actual = await attend(backend, plant(inputs, planting), options);
      const harmless = await attend(backend, plant(inputs, zeros(planting)), options);
      const isClean = rowsOf(actual, dim, clean);
      expectSame(isClean, rowsOf(harmless, dim, clean), 'rows that do not see it', 1e-6);
      expect(isClean.every(Number.isFinite)).to.equal(true);
      expectSame(actual, await attend('cpu', plant(inputs, planting), options), 'as on the CPU');
      await setBackend(backend);
    });

    if (!withGradients) continue;
    it(`gradients: ${name}`, async () => {
      const inputs = randomInputs(shape, seed);
      const attention = (q: Tensor4D, k: Tensor4D, v: Tensor4D) => flashAttention(q, k, v, optionsOf(options));
      const planted = plant(inputs, planting);
      const dy = outputGradient(inputs);
      const actual = await gradients(backend, planted, dy, attention);
      const harmless = await gradients(backend, plant(inputs, zeros(planting)), dy, attention);
      const [headDim] = inputs.queryShape.slice(3);
      expectSame(
        rowsOf(actual.query, headDim, clean),
        rowsOf(harmless.query, headDim, clean),
        'by rows that do not see it',
        1e-6,
      );
      const expected = await gradients('cpu', planted, dy, attention);
      for (const part of ['query', 'key', 'value'] as const) {
        expectSame(actual[part], expected[part], `by ${part}, as on the CPU`, 1e-3);
      }
      await setBackend(backend);
    }).timeout(compiling);
  }

  it('gradients: rows of the gradient by the output', async () => {
    const inputs = randomInputs({heads: 2, length: 40, headDim: 16}, seed);
    const dy = outputGradient(inputs, [
      [13, nan],
      [40 + 35, infinity],
    ]);
    const attention = (q: Tensor4D, k: Tensor4D, v: Tensor4D) => flashAttention(q, k, v);
    const actual = await gradients(backend, inputs, dy, attention);
    const isLater = (row: number) => (row < 40 ? row > 13 : row > 40 + 35);
    expect(rowsOf(actual.key, 16, isLater).every(Number.isFinite)).to.equal(true);
    expect(rowsOf(actual.value, 16, isLater).every(Number.isFinite)).to.equal(true);
    expect(rowsOf(actual.query, 16, (row) => row !== 13 && row !== 40 + 35).every(Number.isFinite)).to.equal(true);
    const expected = await gradients('cpu', inputs, dy, attention);
    for (const part of ['query', 'key', 'value'] as const) {
      expectSame(actual[part], expected[part], `by ${part}, as on the CPU`, 1e-3);
    }
    await setBackend(backend);
  });

  it('scores of −Infinity alone leave zeros', async () => {
    const inputs = randomInputs({length: 6, headDim: 4}, seed);
    inputs.query.fill(1);
    inputs.key.fill(-Infinity, 0, 8);
    const actual = await attend(backend, inputs, {});
    expect(Array.from(actual).slice(0, 8)).to.deep.equal(Array.from({length: 8}, () => 0));
    expectSame(actual, await attend('cpu', inputs, {}), 'as on the CPU');
    await setBackend(backend);
  });

  const sizes: PBSAttentionOptions = {blockSize: 8, keyBlockSize: 4, segmentSize: 16, threshold: 0.7, auto: false};
  const rules: Record<string, PBSAttentionOptions> = {sampled: sizes, pooled: {...paperOptions, ...sizes}};

  /** Sparse attention, and exact attention over the keys of its plan: the same, whatever the inputs. */
  async function sparse(inputs: Inputs, given: PBSAttentionOptions, mask?: MaskValues) {
    await setBackend(backend);
    const [q, k, v] = tensors(inputs);
    const options = {...given, ...(mask && {mask: maskTensor(mask)})};
    const plan = pbsAttentionPlan(q, k, options);
    const outputs = [pbsAttention(q, k, v, options), pbsAttention(q, k, v, {...options, plan})];
    const [actual, byPlan] = await Promise.all(outputs.map((x) => x.data()));
    const values = await valuesOf(plan);
    [q, k, v, plan.keyIndices, plan.blockMask, ...outputs, ...(options.mask ? [options.mask] : [])].forEach((x) =>
      x.dispose(),
    );
    const {keyLengths, queryOffset} = options as {keyLengths?: number[]; queryOffset?: number};
    const expected = await attend('cpu', inputs, {keyLengths, queryOffset, mask: planMask(values, mask)});
    await setBackend(backend);
    return {actual, byPlan, expected, values};
  }

  for (const [rule, options] of Object.entries(rules)) {
    it(`sparse attention, ${rule}: behind a causal end`, async () => {
      const inputs = randomInputs({heads: 4, keyValueHeads: 2, length: 96, headDim: 16}, seed);
      const planted = plant(inputs, {
        key: [
          [90, nan],
          [96 + 70, infinity],
        ],
        value: [
          [60, nan],
          [96 + 42, infinity],
        ],
        query: [[80, nan]],
      });
      const {actual, byPlan, expected, values} = await sparse(planted, options);
      expectSame(actual, expected, 'as exact attention over the plan');
      expectSame(byPlan, expected, 'by the plan, as exact attention over it');
      expect(rowsOf(actual, 16, (row) => row < 192 && row % 96 < 60).every(Number.isFinite)).to.equal(true);
      for (let head = 0; head < 4; ++head) {
        const order = Array.from(values.keyIndices).slice(head * 96, (head + 1) * 96);
        expect(order.sort((a, b) => a - b)).to.deep.equal(Array.from({length: 96}, (_, i) => i));
      }
      await setBackend('cpu');
      const [q, k, v] = tensors(planted);
      const plan = pbsAttentionPlan(q, k, options);
      const onCPU = await valuesOf(plan);
      [q, k, v, plan.keyIndices, plan.blockMask].forEach((x) => x.dispose());
      expect(Array.from(values.keyIndices), 'key order').to.deep.equal(Array.from(onCPU.keyIndices));
      expect(Array.from(values.blockMask), 'blocks').to.deep.equal(Array.from(onCPU.blockMask));
      await setBackend(backend);
    });

    it(`sparse attention, ${rule}: padding does not matter at all`, async () => {
      const inputs = randomInputs({batch: 3, heads: 2, length: 70, headDim: 16}, seed);
      const withLengths = {...options, keyLengths: [48, 37, 0]};
      const padding: Planting = {
        key: [
          [48, nan],
          [140 + 37, infinity],
          [140 + 69, nan],
          [280, nan],
        ],
        value: [
          [69, nan],
          [70 + 50, infinity],
          [140 + 40, nan],
          [290, nan],
        ],
      };
      const planted = await sparse(plant(inputs, padding), withLengths);
      const harmless = await sparse(plant(inputs, zeros(padding)), withLengths);
      expect(Array.from(planted.values.blockMask)).to.deep.equal(Array.from(harmless.values.blockMask));
      expect(Array.from(planted.values.keyIndices)).to.deep.equal(Array.from(harmless.values.keyIndices));
      expect(Array.from(planted.actual)).to.deep.equal(Array.from(harmless.actual));
      expect(Array.from(planted.byPlan)).to.deep.equal(Array.from(harmless.byPlan));
    });
  }

  it('sparse attention: what a mask hides does not matter at all', async () => {
    const inputs = randomInputs({heads: 2, length: 70, headDim: 16}, seed);
    const hidden = [5, 30, 31, 48, 69];
    const mask = additive(hiding(70, 70, hidden, 70));
    const planting: Planting = {
      key: [
        [5, nan],
        [70 + 30, infinity],
        [69, nan],
      ],
      value: [
        [31, nan],
        [70 + 48, infinity],
      ],
    };
    const planted = await sparse(plant(inputs, planting), sizes, mask);
    const harmless = await sparse(plant(inputs, zeros(planting)), sizes, mask);
    expect(Array.from(planted.values.blockMask)).to.deep.equal(Array.from(harmless.values.blockMask));
    expect(Array.from(planted.values.keyIndices)).to.deep.equal(Array.from(harmless.values.keyIndices));
    expectSame(planted.actual, harmless.actual, 'as with zeros in their place');
    expectSame(planted.actual, planted.expected, 'as exact attention over the plan');
    // The pooled estimate looks at hidden keys, too, and keeps the blocks of what is no number.
    const pooled = await sparse(plant(inputs, planting), rules['pooled'], mask);
    expectSame(pooled.actual, pooled.expected, 'as exact attention over the plan of the pooled estimate');
    expect(Array.from(pooled.actual).every(Number.isFinite)).to.equal(true);
  });

  it('sparse attention: a token over a cache by a plan, with keys after it', async () => {
    const inputs = randomInputs({heads: 2, length: 2, keyLength: 600, headDim: 8}, seed);
    const options: PBSAttentionOptions = {...sizes, threshold: 0.9, queryOffset: 580};
    const planted = plant(inputs, {
      key: [[582, nan]],
      value: [
        [590, infinity],
        [600 + 581, nan],
      ],
    });
    const {actual, byPlan, expected} = await sparse(planted, options);
    expectSame(actual, expected, 'as exact attention over the plan');
    expectSame(byPlan, expected, 'by the plan, as exact attention over it');
    expect(rowsOf(actual, 8, (row) => row < 3).every(Number.isFinite)).to.equal(true);
  });

  it('gradients of sparse attention, by a plan made without what is not finite', async () => {
    const inputs = randomInputs({heads: 4, keyValueHeads: 2, length: 75, headDim: 16}, seed);
    const dy = outputGradient(inputs, [[70, nan]]);
    const planted = plant(inputs, {key: [[60, nan]], value: [[71, infinity]], query: [[75 + 74, nan]]});
    const results: Array<Record<Part, ArrayLike<number>>> = [];
    for (const name of [backend, 'cpu']) {
      await setBackend(name);
      const [q, k] = tensors(inputs);
      const plan = pbsAttentionPlan(q, k, sizes);
      const attention = (query: Tensor4D, key: Tensor4D, value: Tensor4D) => pbsAttention(query, key, value, {plan});
      results.push(await gradients(name, planted, dy, attention));
      [q, k, plan.keyIndices, plan.blockMask].forEach((x) => x.dispose());
    }
    const [actual, expected] = results;
    expect(rowsOf(actual.query, 16, (row) => row < 60).every(Number.isFinite)).to.equal(true);
    for (const part of ['query', 'key', 'value'] as const) {
      expectSame(actual[part], expected[part], `by ${part}, as on the CPU`, 1e-3);
    }
    await setBackend(backend);
  }).timeout(compiling);

  it('leaves nothing behind', async () => {
    const before = memory().numTensors;
    const {shape, options, planting} = cases['values behind a causal end'];
    await attend(backend, plant(randomInputs(shape, seed), planting), options);
    expect(memory().numTensors).to.equal(before);
  });
});
