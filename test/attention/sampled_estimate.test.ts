import type {Tensor4D} from '@tensorflow/tfjs-core';
import {concat, setBackend, slice, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions} from '../../src/index';
import {flashAttention, paperOptions, pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import type {BlockGeometry} from '../../src/attention/block_geometry';
import {blockGeometry, scoredBlocks, visibleBlocks} from '../../src/attention/block_geometry';
import {permute} from '../../src/kernels/cpu/permute/permute';
import {sampledMass, sampledScores} from '../../src/kernels/cpu/select/sampled_mass';
import {selectBlocks} from '../../src/kernels/cpu/select/select_blocks';
import {leastScore} from '../../src/attention/sampled_estimate';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {keptBlocks, valuesOf} from '../reference/plan_values';
import type {Inputs, RectangularShape} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';
import {cpuCall} from '../reference/cpu_call';

interface Case {
  name: string;
  shape: RectangularShape;
  sizes: {blockSize: number; keyBlockSize: number; segmentSize: number; queryOffset?: number};
  causal: boolean;
  keyLengths?: number[];
}

const cases: Case[] = [
  {
    name: 'grouped heads, partial blocks and segment',
    shape: {batch: 2, heads: 4, keyValueHeads: 2, length: 150, headDim: 8},
    sizes: {blockSize: 16, keyBlockSize: 8, segmentSize: 32},
    causal: true,
  },
  {
    name: 'more keys than one run of 256 slots',
    shape: {length: 700, headDim: 6},
    sizes: {blockSize: 100, keyBlockSize: 20, segmentSize: 140},
    causal: true,
  },
  {
    name: 'no causal mask',
    shape: {heads: 2, length: 110, headDim: 8},
    sizes: {blockSize: 24, keyBlockSize: 8, segmentSize: 32},
    causal: false,
  },
  {
    name: 'a chunk whose blocks reach over segments, with keys after it',
    shape: {heads: 2, length: 50, keyLength: 150, headDim: 8},
    sizes: {blockSize: 20, keyBlockSize: 6, segmentSize: 18, queryOffset: 75},
    causal: true,
  },
  {
    name: 'padded entries, one of padding alone',
    shape: {batch: 4, heads: 2, keyValueHeads: 1, length: 90, headDim: 8},
    sizes: {blockSize: 8, keyBlockSize: 16, segmentSize: 32},
    causal: true,
    keyLengths: [90, 43, 5, 0],
  },
  {
    name: 'padded entries without a causal mask',
    shape: {batch: 3, heads: 2, length: 90, headDim: 8},
    sizes: {blockSize: 16, keyBlockSize: 8, segmentSize: 16},
    causal: false,
    keyLengths: [90, 43, 0],
  },
];
const scale = 0.4;

/** Weights `[row][original key]` before they are divided, of one head; 0 where a row does not see a key. */
function weightsOf({query, key, queryShape, keyShape}: Inputs, {causal, ...test}: Case, head: number): number[][] {
  const [, heads, rows, headDim] = queryShape;
  const [, keyHeads, keys] = keyShape;
  const [entry, group] = [Math.floor(head / heads), heads / keyHeads];
  const keyHead = entry * keyHeads + Math.floor((head % heads) / group);
  const offset = test.sizes.queryOffset ?? keys - rows;
  return Array.from({length: rows}, (_, row) =>
    Array.from({length: keys}, (_, position) => {
      const isHidden = (causal && position > offset + row) || position >= (test.keyLengths?.[entry] ?? keys);
      let product = 0;
      for (let d = 0; d < headDim; ++d) {
        product += query[(head * rows + row) * headDim + d] * key[(keyHead * keys + position) * headDim + d];
      }
      return isHidden ? 0 : Math.exp(scale * product);
    }),
  );
}

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
const range = (length: number) => Array.from({length}, (_, i) => i);

/** By their definition, dense: the mean attention of the first 32 rows behind a segment to its keys, by segment. */
function referenceKeyScores(weights: number[][], {sizes, shape, causal}: Case, length: number): number[][] {
  const {length: rows, keyLength = rows} = shape;
  const offset = causal ? (sizes.queryOffset ?? keyLength - rows) : 0;
  const seen = causal ? offset + rows : keyLength;
  return range(Math.floor(seen / sizes.segmentSize)).map((segment) => {
    const keys = range(sizes.segmentSize).map((i) => segment * sizes.segmentSize + i);
    const isPadding = (row: number) => (causal || rows === keyLength) && offset + row >= length;
    const real = range(rows).filter((row) => !isPadding(row));
    const behind = causal
      ? real.filter((row) => offset + row >= (segment + 1) * sizes.segmentSize).slice(0, 32)
      : real.slice(-32);
    const total = (row: number) => sum(keys.map((key) => weights[row][key]));
    return keys.map((key) =>
      sum(behind.map((row) => (weights[row][key] === 0 ? 0 : weights[row][key] / total(row) / behind.length))),
    );
  });
}

/** By their definition, dense: mean and largest share of a block, `[queryBlock][keyBlock]`, over the competing ones. */
function referenceMass(weights: number[][], order: number[], geometry: BlockGeometry, causal: boolean) {
  const {blockSize, keyBlockSize, queryLength, queryBlocks, keyBlocks} = geometry;
  const sink = Math.floor(order.indexOf(0) / keyBlockSize);
  const slots = range(order.length);
  const blockOf = (slot: number) => Math.floor(slot / keyBlockSize);
  const mass = range(queryBlocks).map(() => range(keyBlocks).map(() => ({mean: 0, peak: 0})));
  for (let row = 0; row < queryLength; ++row) {
    const queryBlock = Math.floor(row / blockSize);
    const rows = Math.min(blockSize, queryLength - queryBlock * blockSize);
    const i = row % blockSize;
    const phase = (i + Math.floor(i / 4)) % 4;
    const competing = scoredBlocks(geometry, causal, queryBlock);
    const visible = visibleBlocks(geometry, causal, queryBlock);
    const paid = (slot: number) => weights[row][order[slot]];
    const isSampled = (slot: number) => (slot + phase) % 4 === 0;
    const always = slots.filter(
      (slot) => blockOf(slot) < visible && (blockOf(slot) >= competing || blockOf(slot) === sink),
    );
    // The sampled slots of one of four tiles of 64, another one in each run of 256.
    const turn = (slot: number) => Math.floor(slot / 64) + Math.floor(slot / 256);
    const coarse = slots.filter(
      (slot) =>
        blockOf(slot) < competing && blockOf(slot) !== sink && isSampled(slot) && (turn(slot) + phase) % 4 === 0,
    );
    const all = sum(always.map(paid)) + 16 * sum(coarse.map(paid));
    for (let block = 0; block < competing; ++block) {
      const toBlock = 4 * sum(slots.filter((slot) => blockOf(slot) === block && isSampled(slot)).map(paid));
      const share = toBlock === 0 ? 0 : Math.min(1, toBlock / all);
      mass[queryBlock][block].mean += share / rows;
      mass[queryBlock][block].peak = Math.max(mass[queryBlock][block].peak, share);
    }
  }
  return mass;
}

describeOnCPU('sampled estimate against its definition', () => {
  for (const test of cases) {
    const {name, shape, sizes, causal} = test;
    const inputs = randomInputs(shape, 91);
    const info = (size: number[]) => ({shape: size, dtype: 'float32' as const, dataId: {}});
    const geometry = blockGeometry(info(inputs.queryShape), info(inputs.keyShape), {...sizes, causal});
    const {batch, heads, keyLength, segmentSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
    const keyLengths = test.keyLengths && Int32Array.from(test.keyLengths);
    const call = cpuCall(inputs, {geometry, scale, causal, keyLengths});
    const lengthOf = (head: number) => keyLengths?.[Math.floor(head / heads)] ?? keyLength;
    const rule = {permute: true, estimate: 'sampled', threshold: 0.8} as const;
    const planned = () => {
      const order = permute(call, rule);
      const mass = sampledMass(call, order.keyIndices);
      return {...order, ...mass, scores: sampledScores(mass)};
    };
    const orderOf = (keyIndices: Int32Array, head: number) =>
      Array.from(keyIndices.subarray(head * keyLength, (head + 1) * keyLength));

    it(`sorts keys by what the first rows behind their segment pay: ${name}`, () => {
      const {keyIndices} = planned();
      let moved = 0;
      for (let head = 0; head < batch * heads; ++head) {
        const weights = weightsOf(inputs, test, head);
        const segments = referenceKeyScores(weights, test, lengthOf(head));
        const sorted = segments.flatMap((scores, segment) =>
          range(segmentSize)
            .sort((a, b) => scores[b] - scores[a] || a - b)
            .map((i) => segment * segmentSize + i),
        );
        const rest = range(keyLength).slice(sorted.length);
        expect(orderOf(keyIndices, head)).to.deep.equal([...sorted, ...rest]);
        moved += sorted.filter((position, slot) => position !== slot).length;
      }
      expect(moved, 'keys that changed their place').to.be.above(50);
    });

    it(`takes means and peaks over every fourth key: ${name}`, () => {
      const {keyIndices, means, peaks, scores} = planned();
      const expected = range(batch * heads).flatMap((head) =>
        referenceMass(weightsOf(inputs, test, head), orderOf(keyIndices, head), geometry, causal).flat(),
      );
      expect(sum(expected.map(({mean}) => mean)), 'something competes').to.be.above(1);
      expected.forEach(({mean, peak}, i) => {
        expect(means[i], `mean ${i}`).to.be.closeTo(mean, 1e-9);
        expect(peaks[i], `peak ${i}`).to.be.closeTo(peak, 1e-9);
        expect(scores[i], `score ${i}`).to.be.closeTo(mean + 0.1 * peak, 1e-9);
      });
    });

    it(`keeps the own segments, the sink and what reaches the least score: ${name}`, () => {
      const {keyIndices, scores} = planned();
      const lists = selectBlocks({geometry, causal}, rule, scores, keyIndices);
      let [kept, skipped] = [0, 0];
      for (let row = 0; row < batch * heads * queryBlocks; ++row) {
        const queryBlock = row % queryBlocks;
        const sink = Math.floor(orderOf(keyIndices, Math.floor(row / queryBlocks)).indexOf(0) / keyBlockSize);
        const competing = scoredBlocks(geometry, causal, queryBlock);
        const visible = visibleBlocks(geometry, causal, queryBlock);
        const least = leastScore(geometry, causal, rule.threshold, queryBlock);
        const expected = range(visible).filter(
          (block) => block === sink || block >= competing || scores[row * keyBlocks + block] >= least,
        );
        const list = Array.from(lists.subarray(row * (keyBlocks + 1), (row + 1) * (keyBlocks + 1)));
        expect(list.slice(1, 1 + list[0]), `row ${row}`).to.deep.equal(expected);
        const chosen = expected.filter((block) => block < competing && block !== sink).length;
        kept += chosen;
        skipped += competing > 0 ? competing - 1 - chosen : 0;
      }
      expect(Math.min(kept, skipped), 'blocks chosen, and blocks skipped').to.be.above(2);
    });
  }
});

describeOnCPU('least score of the sampled estimate', () => {
  it('is 0.6 (1 − threshold)² √(8192 / keys that the rows see)', () => {
    const least = (length: number, causal: boolean, threshold: number, queryBlock: number) => {
      const info = {shape: [1, 1, length, 8], dtype: 'float32' as const, dataId: {}};
      const geometry = blockGeometry(info, info, {blockSize: 128, keyBlockSize: 64, segmentSize: 256, causal});
      return leastScore(geometry, causal, threshold, queryBlock);
    };
    expect(least(8192, true, 0, 63)).to.be.closeTo(0.6, 1e-12);
    expect(least(8192, true, 0.9, 63)).to.be.closeTo(0.006, 1e-12);
    expect(least(8192, true, 0.9, 15), 'rows that end with key 2048').to.be.closeTo(0.012, 1e-12);
    expect(least(2048, false, 0.9, 0), 'without a causal mask').to.be.closeTo(0.012, 1e-12);
    expect(least(32768, true, 1, 255)).to.equal(0);
  });
});

describeBackends('sampled estimate', (backend) => {
  before(() => setBackend(backend));
  const tolerance = backend === 'cpu' ? 1e-5 : 1e-4;
  const shape = {batch: 2, heads: 4, keyValueHeads: 2, length: 200, headDim: 16};
  const sizes = {blockSize: 16, keyBlockSize: 8, segmentSize: 32, auto: false};

  it('is exact with a threshold of 1, and nearly the forced blocks with 0', async () => {
    const [q, k, v] = tensors(randomInputs(shape, 92));
    const exact = await flashAttention(q, k, v).data();
    expect(relativeL1(await pbsAttention(q, k, v, {...sizes, threshold: 1}).data(), exact)).to.be.below(tolerance);
    expect(relativeL1(await pbsAttention(q, k, v, {...sizes, threshold: 0}).data(), exact)).to.be.above(0.1);
    const density = await pbsAttentionDensity(pbsAttentionPlan(q, k, {...sizes, threshold: 0}));
    const values = await valuesOf(pbsAttentionPlan(q, k, {...sizes, threshold: 0}));
    // Four blocks a segment; the last of 25 blocks is a segment of its own. The sink is one more, but in the first segment.
    const own = range(13).map((block) => (block === 12 ? 1 : 4) + (block < 2 ? 0 : 1));
    const visible = range(13).map((block) => Math.min(25, 4 * (Math.floor(block / 2) + 1)));
    expect(density).to.be.closeTo(sum(own) / sum(visible), 1e-6);
    range(8 * 13).forEach((row) => expect(keptBlocks(values, row)).to.have.length(own[row % 13]));
  });

  it('keeps the block of the one key far away that a single row asks for, if it is in the sample of the row', async () => {
    // So many keys that each row's normaliser meets some.
    const [first, wanted, length, {headDim}] = [580, 70, 600, shape];
    const inputs = randomInputs({...shape, length}, 93);
    // Other rows look at key 0.
    const key = inputs.key.map((x, i) => {
      const [position, d] = [Math.floor(i / headDim) % length, i % headDim];
      return position === 0 && d === 0 ? 24 : position === wanted && d === headDim - 1 ? 12 : x;
    });
    const askedBy = (row?: number) =>
      inputs.query.map((x, i) => {
        const isRow = Math.floor(i / headDim) % length === row;
        return i % headDim === headDim - 1 ? (isRow ? 12 : 0) : isRow ? 0 : x;
      });
    /** By head: whether the query block keeps the key's block, and the place of the key. */
    const found = async (query: Float32Array, options: PBSAttentionOptions) => {
      const [q, k] = [tensor4d(query, inputs.queryShape), tensor4d(key, inputs.keyShape)];
      const values = await valuesOf(pbsAttentionPlan(q, k, {...sizes, ...options}));
      return range(8).map((head) => {
        const order = Array.from(values.keyIndices).slice(head * length, (head + 1) * length);
        const slot = order.indexOf(wanted);
        const queryBlock = head * values.queryBlocks + Math.floor(first / sizes.blockSize);
        return {slot, isKept: keptBlocks(values, queryBlock).includes(Math.floor(slot / sizes.keyBlockSize))};
      });
    };
    const unasked = (await found(askedBy(), {threshold: 0.9})).filter(({isKept}) => isKept).length;
    expect(unasked, 'heads in which the block is kept anyway').to.be.below(4);
    let inSample = 0;
    // Four rows that follow one another turn through the phases.
    for (const row of range(4).map((i) => first + i)) {
      const i = row % sizes.blockSize;
      for (const {slot, isKept} of await found(askedBy(row), {threshold: 0.9})) {
        if ((slot + i + Math.floor(i / 4)) % 4 === 0) {
          expect(isKept, `row ${row}, slot ${slot}`).to.equal(true);
          ++inSample;
        }
      }
    }
    expect(inSample, 'once in each head').to.equal(8);
    const pooled = await found(askedBy(first), {estimate: 'pooled', threshold: 0.3});
    expect(pooled.filter(({isKept}) => isKept).length, 'by mean queries').to.be.below(4);
  });
});

/** Rows `[start, end)`. */
const rowsOf = (x: Tensor4D, start: number, end: number) =>
  slice(x, [0, 0, start, 0], [-1, -1, end - start, -1]) as Tensor4D;

const shape = {heads: 4, keyValueHeads: 2, length: 200, headDim: 16};
const {length, headDim} = shape;
// Blocks of no fewer rows than order the keys; segments end inside of them.
const sizes = {blockSize: 32, keyBlockSize: 8, segmentSize: 24, threshold: 0.7, auto: false};

describeBackends('causality of the sampled estimate', (backend) => {
  before(() => setBackend(backend));
  // The same products, in another order where an own segment is sorted otherwise.
  const tolerance = backend === 'cpu' ? 1e-6 : 1e-5;
  for (const causalSafe of [false, true]) {
    it(`looks at nothing after a row's own block, ${causalSafe ? 'causalSafe' : 'by default'}`, async () => {
      const inputs = randomInputs(shape, 94);
      const other = randomInputs(shape, 95);
      const options = {...sizes, causalSafe};
      const run = async (given: Inputs) => {
        const [q, k, v] = tensors(given);
        const values = await valuesOf(pbsAttentionPlan(q, k, options));
        return {values, output: await pbsAttention(q, k, v, options).data()};
      };
      const before = await run(inputs);
      let different = 0;
      for (const end of [96, 128, 160]) {
        const mix = (a: Float32Array, b: Float32Array) =>
          a.map((x, i) => (Math.floor(i / headDim) % length < end ? x : 3 * b[i]));
        const after = await run({
          ...inputs,
          query: mix(inputs.query, other.query),
          key: mix(inputs.key, other.key),
          value: mix(inputs.value, other.value),
        });
        const sorted = Math.floor((end - sizes.blockSize) / sizes.segmentSize) * sizes.segmentSize;
        for (let head = 0; head < shape.heads; ++head) {
          const order = ({values}: typeof before) => Array.from(values.keyIndices).slice(head * length);
          expect(order(after).slice(0, sorted), `order before ${end}`).to.deep.equal(order(before).slice(0, sorted));
          for (let block = 0; block < end / sizes.blockSize; ++block) {
            const kept = ({values}: typeof before) => keptBlocks(values, head * values.queryBlocks + block);
            expect(kept(after), `end ${end}, block ${block}`).to.deep.equal(kept(before));
          }
          const output = ({output}: typeof before) =>
            Array.from(output).slice(head * length * headDim, (head * length + end) * headDim);
          expect(relativeL1(output(after), output(before)), `output before ${end}`).to.be.below(tolerance);
          const rest = ({values}: typeof before) => keptBlocks(values, (head + 1) * values.queryBlocks - 1).join();
          different += rest(after) === rest(before) ? 0 : 1;
        }
      }
      expect(different, 'later blocks do change').to.be.above(0);
    });
  }

  for (const segmentSize of [24, 64]) {
    it(`gives in chunks of whole blocks what one pass gives, with causalSafe, segments of ${segmentSize}`, async () => {
      const [q, k, v] = tensors(randomInputs(shape, 96));
      const options = {...sizes, segmentSize, causalSafe: true};
      const whole = await valuesOf(pbsAttentionPlan(q, k, options));
      const expected = await pbsAttention(q, k, v, options).data();
      const density = await pbsAttentionDensity(pbsAttentionPlan(q, k, options));
      expect(density, 'blocks are left out').to.be.within(0.2, 0.9);
      const chunks: Tensor4D[] = [];
      for (const [start, end] of [
        [0, 64],
        [64, 96],
        [96, 160],
        [160, 200],
      ]) {
        const [query, key, value] = [rowsOf(q, start, end), rowsOf(k, 0, end), rowsOf(v, 0, end)];
        const part = await valuesOf(pbsAttentionPlan(query, key, options));
        for (let head = 0; head < shape.heads; ++head) {
          for (let block = 0; block < part.queryBlocks; ++block) {
            const kept = keptBlocks(part, head * part.queryBlocks + block);
            const first = start / sizes.blockSize;
            const ofWhole = keptBlocks(whole, head * whole.queryBlocks + first + block);
            // Of the own segment there are only the keys so far.
            const soFar = ofWhole.filter((keyBlock) => keyBlock < part.keyBlocks);
            expect(kept, `rows from ${start}, block ${block}`).to.deep.equal(soFar);
          }
        }
        chunks.push(pbsAttention(query, key, value, options));
      }
      expect(relativeL1(await concat(chunks, 2).data(), expected)).to.be.below(tolerance);
    });
  }
});

describeOnCPU('what comes later', () => {
  it('lets the rows of a block choose together, and by the paper all rows of a prompt', async () => {
    const inputs = randomInputs(shape, 94);
    const other = randomInputs(shape, 95);
    const from = 132;
    const mix = (a: Float32Array, b: Float32Array) =>
      a.map((x, i) => (Math.floor(i / headDim) % length < from ? x : 3 * b[i]));
    const changed = {...inputs, query: mix(inputs.query, other.query), key: mix(inputs.key, other.key)};
    /** Rows before the ones that are others, whose output is another all the same. */
    const changedRows = async (options: PBSAttentionOptions) => {
      const outputs = await Promise.all(
        [inputs, changed].map((given) => pbsAttention(...tensors(given), {...sizes, ...options}).data()),
      );
      const isOther = (i: number) => Math.abs(outputs[0][i] - outputs[1][i]) > 1e-3;
      const row = (i: number) => Math.floor(i / headDim) % length;
      return Array.from(outputs[0].keys(), row).filter((x, i) => x < from && isOther(i));
    };
    for (const causalSafe of [false, true]) {
      const rows = await changedRows({causalSafe});
      expect(Math.min(...rows)).to.be.within(128, from - 1);
    }
    expect(Math.min(...(await changedRows({...paperOptions, ...sizes}))), 'by the paper').to.be.below(128);
  });
});
