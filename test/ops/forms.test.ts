import type {Tensor4D} from '@tensorflow/tfjs-core';
import {cast, concat, dispose, memory, setBackend, slice, tensor1d, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import fc from 'fast-check';
import type {PBSAttentionOptions} from '../../src/index';
import {
  extendPBSAttentionPlan,
  flashAttention,
  pbsAttention,
  pbsAttentionDensity,
  pbsAttentionPlan,
} from '../../src/index';
import {describeAllBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import type {PlanValues} from '../reference/plan_values';
import {keptBlocks, planMask, valuesOf} from '../reference/plan_values';
import type {MaskValues, RectangularShape, ReferenceOptions} from '../reference/attention';
import {composedAttention, maskTensor, randomInputs, tensors} from '../reference/attention';

const cut = {blockSize: 8, segmentSize: 16, auto: false};

/** Values in a regular pattern: hides about a third of the keys, and with `-Infinity` and `-1e9` in an additive mask. */
function maskOf(shape: MaskValues['shape'], dtype: MaskValues['dtype']): MaskValues {
  const size = shape.reduce((a, b) => a * b, 1);
  const hash = (i: number) => (Math.imul(i + 1, 0x9e3779b1) >>> 0) / 2 ** 32;
  const additive = (x: number) => (x < 0.2 ? -Infinity : x < 0.3 ? -1e9 : 4 * x - 2);
  return {
    values: Array.from({length: size}, (_, i) => (dtype === 'bool' ? (hash(i) < 0.33 ? 0 : 1) : additive(hash(i)))),
    shape,
    dtype,
  };
}

interface Form {
  shape: RectangularShape;
  options: ReferenceOptions;
}

const exactForms: Record<string, Form> = {
  'a chunk that ends with the keys': {
    shape: {heads: 4, keyValueHeads: 2, length: 37, keyLength: 90, headDim: 8},
    options: {},
  },
  'a chunk with keys after it': {shape: {length: 37, keyLength: 90, headDim: 8}, options: {queryOffset: 20}},
  'the first rows of longer keys': {shape: {length: 20, keyLength: 33, headDim: 8}, options: {queryOffset: 0}},
  'a token over a cache': {shape: {heads: 4, keyValueHeads: 1, length: 1, keyLength: 71, headDim: 8}, options: {}},
  // Few rows over more than 512 keys: WebGPU cuts the keys into chunks.
  'a token over a long cache': {
    shape: {batch: 2, heads: 4, keyValueHeads: 2, length: 1, keyLength: 600, headDim: 8},
    options: {keyLengths: [600, 1]},
  },
  'tokens over a long cache': {
    shape: {heads: 4, keyValueHeads: 2, length: 3, keyLength: 1030, headDim: 8, valueDim: 12},
    options: {queryOffset: 700, mask: maskOf([1, 4, 3, 1030], 'float32')},
  },
  'cross-attention to fewer keys': {
    shape: {heads: 2, length: 50, keyLength: 21, headDim: 8},
    options: {causal: false},
  },
  'cross-attention to more keys': {shape: {batch: 2, length: 5, keyLength: 40, headDim: 8}, options: {causal: false}},
  'values of fewer dimensions': {shape: {heads: 2, length: 40, headDim: 8, valueDim: 6}, options: {}},
  'values of more dimensions': {
    shape: {heads: 2, keyValueHeads: 1, length: 40, headDim: 8, valueDim: 36},
    options: {causal: false},
  },
  'key lengths': {shape: {batch: 4, heads: 2, length: 30, headDim: 8}, options: {keyLengths: [30, 17, 1, 0]}},
  'key lengths without a causal mask': {
    shape: {batch: 3, heads: 2, length: 30, headDim: 8},
    options: {keyLengths: [8, 30, 0], causal: false},
  },
  'key lengths of a chunk': {
    shape: {batch: 2, length: 9, keyLength: 40, headDim: 8},
    options: {keyLengths: [12, 36], queryOffset: 20},
  },
  'a bool mask of every head': {
    shape: {batch: 2, heads: 2, length: 20, headDim: 8},
    options: {mask: maskOf([2, 2, 20, 20], 'bool'), causal: false},
  },
  'a bool mask of keys': {
    shape: {batch: 2, heads: 2, length: 20, headDim: 8},
    options: {mask: maskOf([2, 1, 1, 20], 'bool'), causal: false},
  },
  'a bool mask of rows': {
    shape: {batch: 2, heads: 2, length: 20, headDim: 8},
    options: {mask: maskOf([1, 2, 20, 1], 'bool')},
  },
  'an additive mask of every head': {
    shape: {batch: 2, heads: 4, keyValueHeads: 2, length: 12, keyLength: 20, headDim: 8},
    options: {mask: maskOf([2, 4, 12, 20], 'float32')},
  },
  'an additive mask that all share': {
    shape: {batch: 2, heads: 2, length: 20, headDim: 8},
    options: {mask: maskOf([1, 1, 20, 20], 'float32'), causal: false},
  },
  'everything at once': {
    shape: {batch: 2, heads: 4, keyValueHeads: 2, length: 21, keyLength: 45, headDim: 12, valueDim: 20},
    options: {queryOffset: 15, keyLengths: [45, 22], scale: 0.4, mask: maskOf([2, 1, 21, 45], 'float32')},
  },
};

const sparseForms: Record<string, Form> = {
  'without a causal mask': {shape: {batch: 2, heads: 2, length: 75, headDim: 8}, options: {causal: false}},
  'cross-attention': {
    shape: {heads: 4, keyValueHeads: 2, length: 30, keyLength: 90, headDim: 8},
    options: {causal: false},
  },
  'cross-attention to fewer keys': {
    shape: {heads: 2, length: 90, keyLength: 50, headDim: 8},
    options: {causal: false},
  },
  'a chunk that starts with a segment': {shape: {heads: 2, length: 37, keyLength: 85, headDim: 8}, options: {}},
  'a chunk whose blocks reach over segments': {
    shape: {heads: 4, keyValueHeads: 2, length: 30, keyLength: 83, headDim: 8},
    options: {},
  },
  'a chunk with keys after it': {shape: {heads: 2, length: 21, keyLength: 90, headDim: 8}, options: {queryOffset: 42}},
  'a token over a cache': {shape: {heads: 2, length: 1, keyLength: 90, headDim: 8}, options: {}},
  'values of fewer dimensions': {shape: {heads: 2, length: 70, headDim: 8, valueDim: 6}, options: {}},
  'values of more dimensions': {shape: {heads: 2, length: 70, headDim: 8, valueDim: 36}, options: {causal: false}},
  'key lengths': {shape: {batch: 4, heads: 2, length: 70, headDim: 8}, options: {keyLengths: [70, 48, 37, 0]}},
  'key lengths without a causal mask': {
    shape: {batch: 3, heads: 2, length: 70, headDim: 8},
    options: {keyLengths: [70, 37, 0], causal: false},
  },
  'key lengths of a chunk, which may be padding alone': {
    shape: {batch: 3, heads: 2, length: 20, keyLength: 80, headDim: 8},
    options: {keyLengths: [80, 67, 21]},
  },
};

describeAllBackends('forms of attention', (backend) => {
  before(() => setBackend(backend));
  const tolerance = backend === 'cpu' ? 1e-5 : 1e-4;

  for (const [name, {shape, options}] of Object.entries(exactForms)) {
    it(`flashAttention is composed attention: ${name}`, async () => {
      const [q, k, v] = tensors(randomInputs(shape, 61));
      const ours = flashAttention(q, k, v, {...options, mask: options.mask && maskTensor(options.mask)});
      expect(ours.shape).to.deep.equal([...q.shape.slice(0, 3), v.shape[3]]);
      expect(relativeL1(await ours.data(), await composedAttention(q, k, v, options).data())).to.be.below(tolerance);
    });
  }

  for (const [name, {shape, options}] of Object.entries(sparseForms)) {
    it(`pbsAttention attends by its plan: ${name}`, async () => {
      const [q, k, v] = tensors(randomInputs(shape, 62));
      const sparse = {...cut, keyBlockSize: 4, ...options, threshold: 0.7} as PBSAttentionOptions;
      const plan = pbsAttentionPlan(q, k, sparse);
      const mask = planMask(await valuesOf(plan));
      const expected = await composedAttention(q, k, v, {...options, mask}).data();
      const own = pbsAttention(q, k, v, sparse);
      expect(own.shape).to.deep.equal([...q.shape.slice(0, 3), v.shape[3]]);
      expect(relativeL1(await own.data(), expected), 'its own plan').to.be.below(tolerance);
      const given = await pbsAttention(q, k, v, {...sparse, plan, threshold: 1, auto: true}).data();
      expect(relativeL1(given, expected), 'a plan given').to.be.below(tolerance);
    });

    // On the GPU threshold 1 runs what flashAttention runs, and another tile is another shader to compile.
    if (backend !== 'cpu' && options.keyLengths === undefined) {
      continue;
    }
    it(`pbsAttention with threshold 1 is exact: ${name}`, async () => {
      const [q, k, v] = tensors(randomInputs(shape, 63));
      const ours = await pbsAttention(q, k, v, {...cut, ...options, threshold: 1} as PBSAttentionOptions).data();
      expect(relativeL1(ours, await composedAttention(q, k, v, options).data())).to.be.below(tolerance);
    });
  }

  it('gives zeros in rows that see nothing, of values that are no numbers too', async () => {
    const inputs = randomInputs({batch: 2, length: 6, headDim: 8}, 64);
    const [q, k, v] = tensors({...inputs, value: inputs.value.map((x, i) => (i < 48 ? NaN : x))});
    const zeros = Array(48).fill(0);
    const firstEntry = async (x: Tensor4D) => Array.from(await slice(x, 0, 1).data());
    for (const causal of [true, false]) {
      const options = {causal, keyLengths: [0, 6]};
      expect(await firstEntry(flashAttention(q, k, v, options)), 'keyLengths').to.deep.equal(zeros);
      const sparse = {...options, blockSize: 1, segmentSize: 2, auto: false};
      expect(await firstEntry(pbsAttention(q, k, v, sparse)), 'pbsAttention').to.deep.equal(zeros);
      for (const [dtype, hidden] of [
        ['bool', 0],
        ['float32', -Infinity],
      ] as const) {
        const values = Array.from({length: 12}, (_, i) => (i < 6 ? hidden : 1));
        const mask = maskTensor({values, shape: [2, 1, 1, 6], dtype});
        expect(await firstEntry(flashAttention(q, k, v, {causal, mask})), dtype).to.deep.equal(zeros);
      }
    }
  });

  it('gives numbers where an additive mask is -1e9 in every key, or lower', async () => {
    const [q, k, v] = tensors(randomInputs({length: 6, headDim: 8}, 65));
    for (const value of [-1e9, -3.4e38]) {
      const mask = maskTensor({values: [value], shape: [1, 1, 1, 1], dtype: 'float32'});
      const output = await flashAttention(q, k, v, {mask}).data();
      expect(
        Array.from(output).every((x) => Number.isFinite(x) && x !== 0),
        `${value}`,
      ).to.equal(true);
    }
  });

  it('gives zeros in rows that see nothing over many keys, and shows the NaN of values that others see', async () => {
    const inputs = randomInputs({batch: 2, heads: 2, keyValueHeads: 1, length: 1, keyLength: 600, headDim: 8}, 64);
    const [q, k, v] = tensors({...inputs, value: inputs.value.map(() => NaN)});
    const output = Array.from(await flashAttention(q, k, v, {keyLengths: [0, 600]}).data());
    expect(output.slice(0, 16)).to.deep.equal(Array(16).fill(0));
    expect(output.slice(16).every(Number.isNaN)).to.equal(true);
  });

  it('takes key lengths as a tensor, and clamps them', async () => {
    const [q, k, v] = tensors(randomInputs({batch: 3, heads: 2, length: 50, headDim: 8}, 66));
    const ends = tensor1d([60, 21, -4], 'int32');
    for (const run of [flashAttention, pbsAttention] as Array<typeof pbsAttention>) {
      const ours = await run(q, k, v, {...(run === pbsAttention && cut), keyLengths: ends}).data();
      const same = await run(q, k, v, {...(run === pbsAttention && cut), keyLengths: [50, 21, 0]}).data();
      expect(Array.from(ours)).to.deep.equal(Array.from(same));
    }
  });

  it('takes floats that were cast from integers', async () => {
    const {query, key, value} = randomInputs({heads: 2, keyValueHeads: 1, length: 40, headDim: 6}, 68);
    const whole = (values: Float32Array) => Array.from(values, (x) => Math.round(x));
    const [asFloats, asCast] = [false, true].map((isCast) => {
      const floats = (values: number[], shape: [number, number, number, number], dtype: 'int32' | 'bool') =>
        isCast ? (cast(tensor4d(values, shape, dtype), 'float32') as Tensor4D) : tensor4d(values, shape);
      return {
        q: floats(whole(query), [1, 2, 40, 6], 'int32'),
        k: floats(whole(key), [1, 1, 40, 6], 'int32'),
        v: floats(whole(value), [1, 1, 40, 6], 'int32'),
        mask: floats(
          Array.from({length: 1600}, (_, i) => ((3 * i) % 7 < 3 ? 1 : 0)),
          [1, 1, 40, 40],
          'bool',
        ),
      };
    });
    const before = memory().numTensors;
    const runs = {
      flash: ({q, k, v}: typeof asCast) => flashAttention(q, k, v),
      mask: ({q, k, v, mask}: typeof asCast) => flashAttention(q, k, v, {mask}),
      pbs: ({q, k, v}: typeof asCast) => pbsAttention(q, k, v, {...cut, threshold: 0.7}),
    };
    for (const [name, run] of Object.entries(runs)) {
      const [expected, got] = [run(asFloats), run(asCast)];
      expect(Array.from(await got.data()), name).to.deep.equal(Array.from(await expected.data()));
      dispose([expected, got]);
    }
    expect(memory().numTensors).to.equal(before);
  });

  it('gives the same exact attention whatever the chunks of a prefill', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 4, keyValueHeads: 2, length: 100, headDim: 8}, 67));
    const whole = await flashAttention(q, k, v).data();
    const rows = (x: Tensor4D, start: number, end: number) => slice(x, [0, 0, start, 0], [-1, -1, end - start, -1]);
    for (const size of [1, 7, 32, 64]) {
      const chunks: Tensor4D[] = [];
      for (let start = 0; start < 100; start += size) {
        const end = Math.min(start + size, 100);
        // Every other chunk over a cache that is longer already.
        const inCache = start % (2 * size) === 0 ? end : 100;
        const [keys, values] = [rows(k, 0, inCache), rows(v, 0, inCache)];
        chunks.push(flashAttention(rows(q, start, end), keys, values, {queryOffset: start}));
      }
      expect(relativeL1(await concat(chunks, 2).data(), whole), `chunks of ${size}`).to.be.below(tolerance / 10);
    }
  });

  it("plans the last chunk, if it starts with a segment, as the whole prompt's same rows, by the pooled estimate", async () => {
    const [q, k] = tensors(randomInputs({heads: 2, length: 90, headDim: 8}, 68));
    const options = {...cut, estimate: 'pooled' as const, threshold: 0.6};
    const whole = await valuesOf(pbsAttentionPlan(q, k, options));
    const chunk = slice(q, [0, 0, 48, 0], [-1, -1, 42, -1]) as Tensor4D;
    const last = await valuesOf(pbsAttentionPlan(chunk, k, options));
    expect(Array.from(last.keyIndices)).to.deep.equal(Array.from(whole.keyIndices));
    for (let head = 0; head < 2; ++head) {
      for (let block = 0; block < 6; ++block) {
        expect(keptBlocks(last, head * 6 + block)).to.deep.equal(keptBlocks(whole, head * 12 + 6 + block));
      }
    }
  });

  for (const estimate of ['sampled', 'pooled'] as const) {
    it(`plans a chunk as if the keys after it were not there, ${estimate}`, async () => {
      // A cache with room for keys to come: zeros here, which take most of a softmax over all, and loud keys.
      const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 64, keyLength: 160, headDim: 8}, 77);
      for (const after of [0, 30]) {
        for (const [first, end] of [
          [48, 64],
          [40, 53],
        ]) {
          const keys = inputs.key.map((x, i) => (i >= end * 16 ? after * x : 4 * x));
          const [whole, k] = tensors({...inputs, key: keys});
          const q = slice(whole, [0, 0, first, 0], [-1, -1, end - first, -1]) as Tensor4D;
          const short = slice(k, [0, 0, 0, 0], [-1, -1, end, -1]) as Tensor4D;
          const threshold = estimate === 'sampled' ? 0.7 : 0.6;
          const options = {blockSize: 8, segmentSize: 16, threshold, queryOffset: first, estimate};
          const alone = await valuesOf(pbsAttentionPlan(q, short, options));
          const before = await valuesOf(pbsAttentionPlan(q, k, options));
          const sorted = Math.floor(end / 16) * 16;
          for (let head = 0; head < 2; ++head) {
            const order = (x: PlanValues) =>
              Array.from(x.keyIndices)
                .slice(head * x.shape[3])
                .slice(0, sorted);
            expect(order(before), 'key order').to.deep.equal(order(alone));
            for (let row = head * alone.queryBlocks; row < (head + 1) * alone.queryBlocks; ++row) {
              const kept = keptBlocks(before, row).filter((block) => block < alone.keyBlocks);
              expect(kept, `keys ${after}, rows from ${first}, row ${row}`).to.deep.equal(keptBlocks(alone, row));
            }
          }
        }
      }
    });
  }

  it('keeps every block of the segments that a block of queries stands in', async () => {
    // Rows 14 to 21 and 22 to 29 of the keys: segments 0 and 1, then 1 alone; 30 to 34: 1 and 2.
    const [q, k] = tensors(randomInputs({length: 21, keyLength: 40, headDim: 8}, 69));
    const options = {...cut, threshold: 0, queryOffset: 14};
    const plan = pbsAttentionPlan(q, k, options);
    const values = await valuesOf(plan);
    expect(keptBlocks(values, 0)).to.deep.equal([0, 1, 2, 3]);
    expect(keptBlocks(values, 1)).to.include.members([2, 3]);
    expect(keptBlocks(values, 1)).not.to.include(4);
    expect(keptBlocks(values, 2)).to.include.members([2, 3, 4]);
    const exact = await valuesOf(pbsAttentionPlan(q, k, {...options, threshold: 1}));
    expect([0, 1, 2].map((row) => keptBlocks(exact, row).length)).to.deep.equal([4, 4, 5]);
  });

  // Without a causal mask padding counts as keys that a row sees, and so for the least score of the sampled estimate.
  for (const [estimate, causal, threshold] of [
    ['sampled', true, 0.7],
    ['pooled', true, 0.6],
    ['pooled', false, 0.6],
  ] as const) {
    it(`plans a padded entry as the same without padding, ${estimate}, ${causal ? 'causal' : 'not causal'}`, async () => {
      // Padding that outweighs everything, if anybody looks at it.
      const inputs = randomInputs({batch: 2, heads: 2, length: 90, headDim: 8}, 70);
      const isPadding = (i: number) => i < 2 * 90 * 16 && Math.floor(i / 16) % 90 >= 48;
      const loud = (x: Float32Array) => x.map((value, i) => (isPadding(i) ? 30 : value));
      const [q, k, v] = tensors({...inputs, query: loud(inputs.query), key: loud(inputs.key)});
      const options = {...cut, estimate, threshold, causal};
      const padded = pbsAttentionPlan(q, k, {...options, keyLengths: [48, 90]});
      const values = await valuesOf(padded);
      const [shortQ, shortK] = [q, k].map((x) => slice(x, [0, 0, 0, 0], [1, -1, 48, -1]) as Tensor4D);
      const short = await valuesOf(pbsAttentionPlan(shortQ, shortK, options));
      for (let head = 0; head < 2; ++head) {
        const order = (x: PlanValues) => Array.from({length: 48}, (_, i) => x.keyIndices[head * x.shape[3] + i]);
        expect(order(values), 'key order').to.deep.equal(order(short));
        for (let block = 0; block < 6; ++block) {
          const kept = keptBlocks(values, head * 12 + block);
          expect(kept, `block ${block}`).to.deep.equal(keptBlocks(short, head * 6 + block));
        }
      }
      const whole = await valuesOf(pbsAttentionPlan(slice(q, 1, 1), slice(k, 1, 1), options));
      expect(Array.from(values.blockMask).slice(2 * 144)).to.deep.equal(Array.from(whole.blockMask));
      dispose(v);
    });
  }

  it('puts padding last in its segment', async () => {
    const [q, k] = tensors(randomInputs({batch: 2, length: 64, headDim: 8}, 71));
    const {keyIndices} = pbsAttentionPlan(q, k, {...cut, keyLengths: [37, 0]});
    const order = Array.from(await keyIndices.data());
    const identity = Array.from({length: 64}, (_, i) => i);
    expect(order.slice(37, 64)).to.deep.equal(identity.slice(37));
    expect(order.slice(0, 37)).not.to.deep.equal(identity.slice(0, 37));
    expect(order.slice(64)).to.deep.equal(identity);
  });

  it('leaks nothing when it plans, extends and attends', () => {
    const [q, k, v] = tensors(randomInputs({batch: 2, length: 20, keyLength: 70, headDim: 8}, 74));
    const [prompt, token] = [slice(q, [0, 0, 0, 0], [-1, -1, 10, -1]), slice(q, [0, 0, 10, 0], [-1, -1, 1, -1])];
    const short = slice(k, [0, 0, 0, 0], [-1, -1, 60, -1]) as Tensor4D;
    const before = memory().numTensors;
    const plan = pbsAttentionPlan(prompt as Tensor4D, short, {...cut, keyLengths: [60, 50]});
    const next = extendPBSAttentionPlan(plan, token as Tensor4D, k, cut);
    const output = pbsAttention(token as Tensor4D, k, v, {...cut, plan: next, keyLengths: [70, 60]});
    expect(memory().numTensors).to.equal(before + 5);
    dispose([plan.keyIndices, plan.blockMask, next.keyIndices, next.blockMask, output]);
    expect(memory().numTensors).to.equal(before);
  });

  it('attends by a plan in the sizes that it was made with', async () => {
    const [q, k, v] = tensors(randomInputs({length: 128, headDim: 8}, 78));
    const sizes = {blockSize: 8, keyBlockSize: 16, segmentSize: 64, causal: false};
    const plan = pbsAttentionPlan(q, k, {...sizes, threshold: 0.7});
    expect(plan.sizes).to.deep.include({
      blockSize: 8,
      keyBlockSize: 16,
      segmentSize: 64,
      causal: false,
      queryOffset: 0,
      queryLength: 128,
    });
    const said = await pbsAttention(q, k, v, {...sizes, plan: {...plan, sizes: undefined}}).data();
    const unsaid = await pbsAttention(q, k, v, {plan}).data();
    expect(Array.from(unsaid)).to.deep.equal(Array.from(said));
    const token = slice(q, [0, 0, 127, 0], [-1, -1, 1, -1]) as Tensor4D;
    const causal = pbsAttentionPlan(q, k, {...sizes, causal: true});
    const next = extendPBSAttentionPlan(causal, token, k);
    expect(next.sizes).to.deep.equal({...plan.sizes, causal: true, queryOffset: 127, queryLength: 1});
  });

  it('counts density over what a chunk can see', async () => {
    const [q, k] = tensors(randomInputs({length: 21, keyLength: 90, headDim: 8}, 75));
    for (const queryOffset of [69, 40]) {
      // The 21 rows from 40 on end in the same segment as three whole blocks would.
      const options = {...cut, queryOffset};
      expect(await pbsAttentionDensity(pbsAttentionPlan(q, k, {...options, threshold: 1}), options)).to.equal(1);
      const sparse = await pbsAttentionDensity(pbsAttentionPlan(q, k, {...options, threshold: 0}), options);
      expect(sparse).to.be.below(0.6);
    }
    // A last block of few rows; as many blocks of queries as of keys, from another position on.
    for (const [length, queryOffset] of [
      [6, 10],
      [84, 6],
      [83, 7],
    ]) {
      const rows = slice(q, [0, 0, 0, 0], [-1, -1, Math.min(length, 21), -1]) as Tensor4D;
      const queries = length > 21 ? (slice(k, [0, 0, 0, 0], [-1, -1, length, -1]) as Tensor4D) : rows;
      const exact = pbsAttentionPlan(queries, k, {...cut, queryOffset, threshold: 1});
      expect(await pbsAttentionDensity(exact), `${length} rows from ${queryOffset}`).to.equal(1);
    }
    const extended = extendPBSAttentionPlan(pbsAttentionPlan(q, k, {...cut, threshold: 1}), q, k, {queryOffset: 0});
    expect(await pbsAttentionDensity(extended), 'blocks after the rows').to.be.at.most(1);
    const whole = {...cut, causal: false};
    expect(await pbsAttentionDensity(pbsAttentionPlan(q, k, {...whole, threshold: 1}), whole)).to.equal(1);
  });

  it('is composed attention, and attention by its plan, in random forms', async function () {
    this.timeout(300_000);
    const form = fc
      .record({
        batch: fc.integer({min: 1, max: 2}),
        keyValueHeads: fc.integer({min: 1, max: 2}),
        group: fc.integer({min: 1, max: 2}),
        // More rows are other tiles on the GPU, each another shader to compile.
        length: fc.integer({min: 1, max: backend === 'cpu' ? 50 : 15}),
        more: fc.integer({min: 0, max: 60}),
        later: fc.integer({min: 0, max: 60}),
        valueDim: fc.constantFrom(8, 20),
        causal: fc.boolean(),
        ends: fc.option(fc.array(fc.integer({min: 0, max: 110}), {minLength: 2, maxLength: 2})),
        keyBlockSize: fc.constantFrom(4, 8, 12),
        blocksPerSegment: fc.integer({min: 1, max: 3}),
        rule: fc.constantFrom(
          {estimate: 'sampled' as const, threshold: 0.7},
          {estimate: 'pooled' as const, threshold: 0.5},
        ),
        seed: fc.integer({min: 1, max: 1e6}),
      })
      .map(({batch, keyValueHeads, group, length, more, later, ends, ...x}) => ({
        shape: {
          batch,
          keyValueHeads,
          heads: keyValueHeads * group,
          length,
          keyLength: length + more,
          headDim: 8,
          valueDim: x.valueDim,
        },
        options: {
          causal: x.causal,
          queryOffset: Math.max(0, more - later),
          ...(ends && {keyLengths: ends.slice(0, batch).map((end) => Math.min(end, length + more))}),
        },
        sizes: {
          ...x.rule,
          blockSize: 8,
          keyBlockSize: x.keyBlockSize,
          segmentSize: x.keyBlockSize * x.blocksPerSegment,
        },
        seed: x.seed,
      }));
    await fc.assert(
      fc.asyncProperty(form, async ({shape, options, sizes, seed}) => {
        const [q, k, v] = tensors(randomInputs(shape, seed));
        const sparse = {...options, ...sizes, auto: false};
        const plan = pbsAttentionPlan(q, k, sparse);
        const mask = planMask(await valuesOf(plan));
        const results = [
          flashAttention(q, k, v, options),
          composedAttention(q, k, v, options),
          pbsAttention(q, k, v, sparse),
          composedAttention(q, k, v, {...options, mask}),
        ];
        const [exact, expectedExact, blocks, expectedBlocks] = await Promise.all(results.map((x) => x.data()));
        expectClose(exact, expectedExact, tolerance);
        expectClose(blocks, expectedBlocks, tolerance);
        dispose([q, k, v, plan.keyIndices, plan.blockMask, ...results]);
      }),
      {seed: 20261125, numRuns: backend === 'cpu' ? 60 : 15, endOnFailure: true},
    );
  });
});

/** As a relative difference, or both zero throughout. */
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  if (Array.from(expected).every((x) => x === 0)) {
    expect(Array.from(actual).every((x) => x === 0)).to.equal(true);
  } else {
    expect(relativeL1(actual, expected)).to.be.below(tolerance);
  }
}
