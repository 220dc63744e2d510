import type {Tensor4D} from '@tensorflow/tfjs-core';
import {
  add,
  backend as activeBackend,
  matMul,
  memory,
  mul,
  profile,
  setBackend,
  slice,
  softmax,
  tensor4d,
  tidy,
} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {PBSAttentionOptions, PBSAttentionReport} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import {isInNormaliser} from '../../src/attention/sampled_estimate';
import {describeAllBackends, describeOnCPU, testBackends} from '../setup/environment';
import {randomInputs, repeatHeads, tensors} from '../reference/attention';

const shape = {batch: 2, heads: 2, keyValueHeads: 1, length: 104, headDim: 8};
const options = {blockSize: 16, keyBlockSize: 8, segmentSize: 32, threshold: 0.73, auto: false};

function reported(inputs: [Tensor4D, Tensor4D, Tensor4D], given: PBSAttentionOptions) {
  let report: PBSAttentionReport | undefined;
  const output = pbsAttention(...inputs, {...given, onReport: (x) => (report = x)});
  return {output, report: report!};
}

/** Share of exact attention in the selected blocks, from the whole matrix of it. */
async function denseKeptMass(
  query: Tensor4D,
  key: Tensor4D,
  report: PBSAttentionReport,
  keyLengths?: number[],
): Promise<number> {
  const [batch, heads, rows, headDim] = query.shape;
  const keys = key.shape[2];
  const weights = tidy(() => {
    const hidden = new Float32Array(batch * rows * keys).map((_, i) => {
      const [entry, row, position] = [Math.floor(i / (rows * keys)), Math.floor(i / keys) % rows, i % keys];
      return position > keys - rows + row || position >= (keyLengths?.[entry] ?? keys) ? -1e9 : 0;
    });
    const products = matMul(query, repeatHeads(key, heads / key.shape[1]), false, true);
    return softmax(add(mul(products, 1 / Math.sqrt(headDim)), tensor4d(hidden, [batch, 1, rows, keys])));
  });
  const {keyIndices, blockMask} = report.plan;
  const [paid, order, mask] = await Promise.all([weights.data(), keyIndices.data(), blockMask.data()]);
  weights.dispose();
  const [, , queryBlocks, keyBlocks] = blockMask.shape;
  let kept = 0;
  for (let row = 0; row < batch * heads * rows; ++row) {
    const head = Math.floor(row / rows);
    const queryBlock = Math.floor((row % rows) / options.blockSize);
    for (let position = 0; position < keys; ++position) {
      const keyBlock = Math.floor(position / options.keyBlockSize);
      const isKept = mask[(head * queryBlocks + queryBlock) * keyBlocks + keyBlock];
      kept += isKept ? paid[row * keys + order[head * keys + position]] : 0;
    }
  }
  return kept / (batch * heads * rows);
}

describeAllBackends('report of a call', (backend) => {
  before(() => setBackend(backend));

  it('says what the call did', async () => {
    const [q, k, v] = tensors(randomInputs(shape, 71));
    const {output, report} = reported([q, k, v], options);
    expect(report.exactReason).to.equal(undefined);
    expect(Array.from(await output.data()), 'the output is the same, to the last bit').to.deep.equal(
      Array.from(await pbsAttention(q, k, v, options).data()),
    );
    const plan = pbsAttentionPlan(q, k, options);
    for (const name of ['keyIndices', 'blockMask'] as const) {
      expect(Array.from(await report.plan[name].data())).to.deep.equal(Array.from(await plan[name].data()));
    }
    expect(await report.density()).to.equal(await pbsAttentionDensity(plan, options));
    expect(await report.keptMass()).to.be.within(0.6, 0.99);
    expect(await report.exactKeptMass()).to.be.closeTo(await denseKeptMass(q, k, report), 1e-5);
    expect(await report.exactKeptMass()).to.be.within(0.5, 0.99);
    report.dispose();
  });

  it('sees more blocks than the head has values, and rows of no full block', async () => {
    const [q, k, v] = tensors(randomInputs({length: 200, headDim: 8}, 72));
    const {report} = reported([q, k, v], options);
    expect(await report.exactKeptMass()).to.be.closeTo(await denseKeptMass(q, k, report), 1e-5);
    report.dispose();
  });

  const exactCalls: Array<[string, PBSAttentionOptions]> = [
    ['threshold', {threshold: 1}],
    ['length', {blockSize: 128, keyBlockSize: 64, segmentSize: 256}],
    ['auto', {auto: true}],
  ];
  for (const [reason, changes] of exactCalls) {
    it(`says why exact attention ran: ${reason}`, async () => {
      const [q, k, v] = tensors(randomInputs(shape, 73));
      const {output, report} = reported([q, k, v], {...options, ...changes});
      expect(report.exactReason).to.equal(reason);
      const exact = flashAttention(q, k, v);
      expect(Array.from(await output.data())).to.deep.equal(Array.from(await exact.data()));
      expect(await report.density()).to.equal(1);
      expect(await report.keptMass()).to.equal(1);
      expect(await report.exactKeptMass()).to.be.closeTo(1, 1e-5);
      report.dispose();
    });
  }

  it('comes with chained calls', async () => {
    const [q, k, v] = tensors(randomInputs(shape, 74));
    let density = 0;
    const reports: PBSAttentionReport[] = [];
    q.pbsAttention(k, v, {...options, onReport: (report) => reports.push(report)});
    for (const report of reports) {
      density = await report.density();
      report.dispose();
    }
    expect(density).to.be.within(0.1, 0.9);
  });

  it('costs nothing where nobody asks', async () => {
    const [q, k, v] = tensors(randomInputs(shape, 75));
    const run = (changes: PBSAttentionOptions) => profile(() => pbsAttention(q, k, v, {...options, ...changes}));
    const without = await run({});
    const isComposed = backend === 'wasm';
    // Composed attention is made of kernels of tfjs.
    const ran = without.kernels.map(({name}) => name);
    expect(isComposed ? ran.slice(-1) : ran).to.deep.equal(['PBSAttention']);
    expect(ran).not.to.include('PBSAttentionPlan');
    expect(without.newTensors).to.equal(1);
    let report: PBSAttentionReport | undefined;
    const asked = await run({onReport: (x) => (report = x)});
    expect(asked.kernels.map(({name}) => name)).to.include('PBSAttentionPlan');
    report!.dispose();
  });

  it('frees what it holds when disposed, also past a tidy, and when the receiver throws', async () => {
    const count = () => [memory().numTensors, memory().numDataBuffers, activeBackend().numDataIds()];
    const [q, k, v] = tensors(randomInputs(shape, 76));
    const before = count();
    let report: PBSAttentionReport | undefined;
    tidy(() => void pbsAttention(q, k, v, {...options, onReport: (x) => (report = x)}));
    expect(await report!.density(), 'it outlives the tidy').to.be.below(1);
    await report!.exactKeptMass();
    report!.dispose();
    expect(count()).to.deep.equal(before);
    const fail = () => {
      throw new Error('of the receiver');
    };
    expect(() => pbsAttention(q, k, v, {...options, onReport: fail})).to.throw('of the receiver');
    expect(count()).to.deep.equal(before);
  });

  it('gives what was asked for before it was disposed, and refuses by name what is asked for after', async () => {
    const [q, k, v] = tensors(randomInputs(shape, 82));
    const {output, report} = reported([q, k, v], options);
    const figures = () => [report.density(), report.keptMass(), report.exactKeptMass()];
    const expected = await Promise.all(figures());
    output.dispose();
    const before = memory().numTensors;
    let asked: Array<Promise<number>> = [];
    tidy(() => void (asked = figures()));
    report.dispose();
    [q, k, v].forEach((x) => x.dispose());
    expect(await Promise.all(asked)).to.deep.equal(expected);
    expect(memory().numTensors, 'tensors').to.be.below(before - 5);
    for (const figure of figures()) {
      const refused = await figure.catch((error: Error) => error.message);
      expect(refused).to.match(/^pbsAttention: \w+: got a report that was disposed; takes one that is not\.$/);
    }
  });
});

if (testBackends().includes('webgpu')) {
  describe('programs of a call [webgpu]', () => {
    before(() => setBackend('webgpu'));

    it('are those of the stages where nobody asks for a report', () => {
      const gpu = activeBackend() as WebGPUBackend;
      const [q, k, v] = tensors(randomInputs(shape, 77));
      const names: string[] = [];
      // Bundlers may number a class.
      const isKeptMass = (name: string) => name.startsWith('KeptMassProgram');
      const runProgram = gpu.runWebGPUProgram;
      gpu.runWebGPUProgram = function (...args) {
        names.push(args[0].constructor.name);
        return runProgram.apply(this, args);
      };
      try {
        pbsAttention(q, k, v, options);
        expect(names.splice(0)).to.have.length(6);
        pbsAttention(q, k, v, {...options, estimate: 'pooled'});
        expect(names, 'by the pooled estimate').to.have.length(8);
        expect(names.some(isKeptMass)).to.equal(false);
        pbsAttention(q, k, v, {...options, onReport: (report) => report.dispose()});
        expect(names.some(isKeptMass)).to.equal(true);
      } finally {
        gpu.runWebGPUProgram = runProgram;
      }
    });
  });
}

describeOnCPU('report of other calls', () => {
  it('knows chunks of padded batches', async () => {
    const [whole, k, v] = tensors(randomInputs({batch: 2, heads: 2, length: 200, headDim: 8}, 79));
    const q = slice(whole, [0, 0, 160, 0], [2, 2, 40, 8]);
    const keyLengths = [170, 200];
    const {output, report} = reported([q, k, v], {...options, keyLengths});
    const expected = pbsAttention(q, k, v, {...options, keyLengths});
    expect(Array.from(await output.data())).to.deep.equal(Array.from(await expected.data()));
    expect(await report.density()).to.be.below(1);
    expect(await report.exactKeptMass()).to.be.closeTo(await denseKeptMass(q, k, report, keyLengths), 1e-5);
    report.dispose();
  });

  it('knows the mask, as long as the report is there', async () => {
    const [q, k, v] = tensors(randomInputs({batch: 2, heads: 2, length: 200, headDim: 8}, 79));
    const keyLengths = [170, 150];
    const ends = Array.from({length: 400}, (_, i) => (i % 200 < keyLengths[Math.floor(i / 200)] ? 0 : -Infinity));
    const mask = tensor4d(ends, [2, 1, 1, 200]);
    const {report} = reported([q, k, v], {...options, mask});
    mask.dispose();
    expect(await report.density()).to.be.below(1);
    expect(await report.keptMass()).to.be.below(1);
    expect(await report.exactKeptMass()).to.be.closeTo(await denseKeptMass(q, k, report, keyLengths), 1e-5);
    report.dispose();
  });

  it('counts no row that sees nothing, and no mass below 0', async () => {
    const [q, k, v] = tensors(randomInputs({batch: 2, heads: 2, length: 200, headDim: 8}, 81));
    for (const [keyLengths, threshold] of [
      [[0, 200], 1],
      [[0, 0], 1],
      [[0, 200], 0],
    ] as const) {
      const {report} = reported([q, k, v], {...options, threshold, causal: false, keyLengths: [...keyLengths]});
      const masses = [await report.keptMass(), await report.exactKeptMass()];
      for (const mass of masses) {
        expect(mass).to.be.within(threshold === 1 ? 1 - 1e-6 : 0, 1 + 1e-6);
      }
      report.dispose();
    }
    // Only keys that no normaliser meets are loud: every block seems to get everything, together more than all.
    const isLoud = (slot: number) => slot >= 8 && !isInNormaliser(slot, (4 - (slot % 4)) % 4);
    const rows = (of: (row: number) => number) =>
      tensor4d(
        Float32Array.from({length: 256}, (_, row) => of(row)),
        [1, 1, 256, 1],
      );
    const [far, loud] = [rows(() => 30), rows((slot) => (isLoud(slot) ? 1 : 0))];
    const spread = {blockSize: 8, segmentSize: 8, threshold: 0, permute: false, auto: false, causal: false};
    const {report} = reported([far, loud, loud], spread);
    expect(await report.keptMass()).to.equal(0);
    report.dispose();
  });

  // Not where one key takes most of a row: four times its share is cut to 1 in a quarter of the rows, and lost in the others.
  it('estimates lost attention by the sampled estimate to a fifth', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 4, keyValueHeads: 2, length: 1024, headDim: 16}, 5));
    for (const [cut, threshold] of [
      [{blockSize: 64, keyBlockSize: 32, segmentSize: 128}, 0.7],
      [{blockSize: 64, keyBlockSize: 32, segmentSize: 128}, 0.8],
      [{blockSize: 32, keyBlockSize: 64, segmentSize: 128}, 0.7],
    ] as const) {
      const {report} = reported([q, k, v], {...cut, threshold, auto: false});
      const lost = 1 - (await report.exactKeptMass());
      expect(lost, 'something is lost').to.be.above(0.01);
      expect((1 - (await report.keptMass())) / lost, `${threshold}`).to.be.within(0.8, 1.2);
      report.dispose();
    }
  });

  it('knows the plan that a call was given', async () => {
    const [q, k, v] = tensors(randomInputs(shape, 80));
    const plan = pbsAttentionPlan(q, k, options);
    const {output, report} = reported([q, k, v], {...options, plan});
    const expected = pbsAttention(q, k, v, options);
    expect(Array.from(await output.data())).to.deep.equal(Array.from(await expected.data()));
    expect(report.exactReason).to.equal(undefined);
    expect(await report.density()).to.equal(await pbsAttentionDensity(plan, options));
    expect(await report.exactKeptMass()).to.be.closeTo(await denseKeptMass(q, k, report), 1e-5);
    const refused = await report.keptMass().catch((error: Error) => error.message);
    expect(refused).to.match(
      /^pbsAttention: keptMass: got a call by a given plan; takes a call that made its own plan/,
    );
    report.dispose();
    expect(plan.blockMask.isDisposed, 'the plan stays with the caller').to.equal(false);
  });
});

describeOnCPU('limits of a report', () => {
  it('refuses the exact mass of long sequences by name', async () => {
    const zeros = tensor4d(new Float32Array(16_385), [1, 1, 16_385, 1]);
    const {report} = reported([zeros, zeros, zeros], {
      threshold: 0,
      permute: false,
      estimate: 'pooled',
      auto: false,
    });
    const refused = await report.exactKeptMass().then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(refused).to.equal(
      'pbsAttention: exactKeptMass: got 16385 tokens; takes at most 16384 tokens; keptMass() estimates it at any length.',
    );
    expect(await report.density()).to.be.below(0.1);
    report.dispose();
  });

  it('names a receiver that is none, and ops that take none', () => {
    const [q, k, v] = tensors(randomInputs({length: 20, headDim: 4}, 78));
    const wrong = {onReport: 'density'} as unknown as PBSAttentionOptions;
    expect(() => pbsAttention(q, k, v, wrong)).to.throw("pbsAttention: onReport: got 'density'; takes a function.");
    expect(() => pbsAttentionPlan(q, k, {onReport: () => undefined} as object)).to.throw(
      "options: got 'onReport'; takes",
    );
  });
});
