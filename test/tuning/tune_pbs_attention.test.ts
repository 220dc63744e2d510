import type {Tensor4D} from '@tensorflow/tfjs-core';
import {backend as activeBackend, dispose, memory, mul, setBackend, tensor4d, tidy} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {HeadShape} from '../../bench/shapes';
import {syntheticAttention} from '../../bench/synthetic_attention';
import type {AttentionSample, FlashAttentionOptions, TuningOptions, TuningTarget} from '../../src/index';
import {
  collectAttentionSamples,
  flashAttention,
  pbsAttention,
  pbsAttentionDensity,
  pbsAttentionPlan,
  tunePBSAttention,
} from '../../src/index';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {randomInputs, tensors} from '../reference/attention';

const sample = (seed: number): AttentionSample => {
  const [query, key, value] = tensors(
    randomInputs({batch: 2, heads: 2, keyValueHeads: 1, length: 104, headDim: 8}, seed),
  );
  return {query, key, value};
};
const small: TuningOptions = {blockSize: 16, segmentSize: 32, thresholds: [0.5, 0.7, 0.85, 0.95]};

describeBackends('tuner', (backend) => {
  before(() => setBackend(backend));

  it('measures density and error of each candidate, as its options give them', async () => {
    const {query, key, value} = sample(81);
    const [{candidates}] = await tunePBSAttention({query, key, value}, {maxRelativeL1: 0.1}, small);
    // Four thresholds and exact attention.
    expect(candidates).to.have.length(5);
    const exact = await flashAttention(query, key, value).data();
    for (const {options, density, relativeL1: error} of candidates) {
      const output = await pbsAttention(query, key, value, options).data();
      expect(error).to.be.closeTo(relativeL1(output, exact), 1e-5);
      expect(density).to.be.closeTo(await pbsAttentionDensity(pbsAttentionPlan(query, key, options), options), 1e-6);
    }
    const times = candidates.map(({expectedTime}) => expectedTime);
    expect(times, 'by expected time').to.deep.equal([...times].sort((a, b) => a - b));
  });

  it('measures the share of attention that is kept, as the report of a call', async () => {
    const {query, key, value} = sample(82);
    const target = {attentionMass: 0.9};
    const [{candidates}] = await tunePBSAttention({query, key, value}, target, small);
    for (const {options, attentionMass} of candidates) {
      let expected: Promise<number> | undefined;
      pbsAttention(query, key, value, {...options, onReport: (report) => (expected = report.exactKeptMass())});
      expect(attentionMass).to.be.closeTo((await expected)!, 1e-5);
    }
  });

  it('frees all that it makes', async () => {
    const count = () => [memory().numTensors, memory().numDataBuffers, activeBackend().numDataIds()];
    const samples = [sample(83), sample(84)];
    const before = count();
    for (const target of [{maxRelativeL1: 0.1}, {attentionMass: 0.9}]) {
      await tunePBSAttention(samples, target, small);
      expect(count()).to.deep.equal(before);
    }
    const refused = await tunePBSAttention(samples, {attentionMass: 0.9}, {...small, segmentSize: 40}).then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(refused).to.equal(
      'tunePBSAttention: segmentSize: got 40 with keyBlockSize 16; takes a multiple of keyBlockSize.',
    );
    expect(count()).to.deep.equal(before);
  });

  it('says how far it is', async () => {
    const samples = [sample(83), sample(84)];
    for (const [options, candidates] of [
      [small, 8],
      [{blockSize: 16, segmentSize: 32}, 20],
      // One segment: exact attention, which is not measured.
      [{blockSize: 128, segmentSize: 128}, 0],
    ] as Array<[TuningOptions, number]>) {
      const told: Array<{measured: number; candidates: number}> = [];
      const onProgress = (x: {measured: number; candidates: number}) => told.push(x);
      const tuned = await tunePBSAttention(samples, {maxRelativeL1: 0.1}, {...options, onProgress});
      expect(told).to.deep.equal(Array.from({length: candidates}, (_, i) => ({measured: i + 1, candidates})));
      expect(tuned.reduce((sum, {candidates: tried}) => sum + tried.length - 1, 0)).to.equal(candidates);
    }
  });

  it('stops when it is told to, with the reason, and frees all that it made', async () => {
    const count = () => [memory().numTensors, memory().numDataBuffers, activeBackend().numDataIds()];
    const samples = [sample(83), sample(84)];
    const before = count();
    for (const target of [{maxRelativeL1: 0.1}, {attentionMass: 0.9}]) {
      // Before the first candidate, within the first sample and within the second.
      for (const stopAfter of [0, 2, 5]) {
        const controller = new AbortController();
        const reason = new Error('enough');
        let told = 0;
        const onProgress = () => void (++told === stopAfter && controller.abort(reason));
        if (stopAfter === 0) controller.abort(reason);
        const tuning = tunePBSAttention(samples, target, {...small, onProgress, signal: controller.signal});
        expect(await tuning.catch((error: unknown) => error)).to.equal(reason);
        expect(told).to.equal(stopAfter);
        expect(count()).to.deep.equal(before);
      }
      const signal = new AbortController().signal;
      expect(await tunePBSAttention(samples, target, {...small, signal})).to.have.length(2);
    }
  });

  it('goes on where a tidy that it was called in ends', async () => {
    const given = sample(87);
    const before = memory().numTensors;
    for (const target of [{maxRelativeL1: 0.1}, {attentionMass: 0.9}]) {
      let inTidy: ReturnType<typeof tunePBSAttention> | undefined;
      tidy(() => void (inTidy = tunePBSAttention(given, target, small)));
      expect(await inTidy).to.deep.equal(await tunePBSAttention(given, target, small));
      expect(memory().numTensors).to.equal(before);
    }
  });

  it('collects what attention is called with', async () => {
    const given = sample(85);
    const before = memory().numTensors;
    const collector = collectAttentionSamples();
    const output = tidy(() => collector.attention(given.query, given.key, given.value, {causal: false}));
    const exact = flashAttention(given.query, given.key, given.value, {causal: false});
    expect(Array.from(await output.data())).to.deep.equal(Array.from(await exact.data()));
    dispose([output, exact]);
    expect(collector.samples).to.have.length(1);
    for (const name of ['query', 'key', 'value'] as const) {
      expect(Array.from(await collector.samples[0][name].data())).to.deep.equal(Array.from(await given[name].data()));
    }
    expect(collector.samples[0]).to.deep.include({causal: false, scale: undefined});
    const {query, key, value} = given;
    for (const [options, message] of [
      [{keyLengths: [104, 90]}, /collectAttentionSamples: keyLengths: got some; takes none/],
      [{queryOffset: 0, causal: true}, undefined],
      [{queryOffset: 7, causal: false}, undefined],
      [{mask: query}, /collectAttentionSamples: mask: got one; takes none/],
    ] as const) {
      const call = () => tidy(() => void collector.attention(query, key, value, options as FlashAttentionOptions));
      if (message) expect(call).to.throw(message);
      else call();
    }
    expect(() => collector.attention(query, [1] as never, value)).to.throw(
      /collectAttentionSamples: key: got float32 \[1\]; takes/,
    );
    collector.dispose();
    expect(memory().numTensors).to.equal(before);
  });

  it('tunes a sample as its layer attends', async () => {
    const {query, key, value} = sample(86);
    const attends = {causal: false, scale: 1};
    const [own] = await tunePBSAttention({query, key, value, ...attends}, {maxRelativeL1: 0.1}, small);
    const [told] = await tunePBSAttention({query, key, value}, {maxRelativeL1: 0.1}, {...small, ...attends});
    expect(own.candidates).to.deep.equal(told.candidates);
    expect(own.candidates[0].options).to.deep.include(attends);
  });
});

describeOnCPU('choice of the tuner', () => {
  const shape: HeadShape = {heads: 4, keyValueHeads: 2, headDim: 16};
  /** Other text for each seed: where topics and names stand, and all noise. */
  const textSample = (seed: number, length = 512): AttentionSample => {
    const {query, key, value} = syntheticAttention(shape, length, seed);
    const tensorOf = (x: Float32Array, heads: number) => tensor4d(x, [1, heads, length, shape.headDim]);
    return {query: tensorOf(query, 4), key: tensorOf(key, 2), value: tensorOf(value, 2)};
  };
  const options: TuningOptions = {
    blockSize: 16,
    segmentSize: 32,
    thresholds: [0.5, 0.7, 0.8, 0.9, 0.95, 0.98],
  };
  it('is the cheapest that meets the target with the margin', async () => {
    for (const target of [{maxRelativeL1: 0.35}, {attentionMass: 0.85}] as TuningTarget[]) {
      const [{options: best, chosen, candidates}] = await tunePBSAttention(textSample(1), target, options);
      expect(best).to.equal(chosen.options);
      const [loss, allowed] =
        'maxRelativeL1' in target ? [chosen.relativeL1, target.maxRelativeL1] : [1 - chosen.attentionMass!, 0.15];
      expect(loss)
        .to.be.above(0)
        .and.at.most(0.8 * allowed);
      const cheaper = candidates.filter(({expectedTime}) => expectedTime < chosen.expectedTime);
      for (const {relativeL1: error, attentionMass} of cheaper) {
        expect('maxRelativeL1' in target ? error : 1 - attentionMass!).to.be.above(0.8 * allowed);
      }
      expect(cheaper.length, 'some are cheaper').to.be.above(0);
      expect(chosen.density).to.be.below(1);
      expect(chosen.expectedSpeedUp).to.be.at.least(1.1);
    }
  });

  it('is exact attention where nothing else meets the target, or there is one segment', async () => {
    const strict = await tunePBSAttention(textSample(1), {maxRelativeL1: 1e-9}, {...options, thresholds: [0.5]});
    expect(strict[0].options).to.deep.equal({threshold: 1});
    const short = await tunePBSAttention(textSample(1, 128), {maxRelativeL1: 0.5});
    expect(short[0].candidates).to.have.length(1);
    expect(short[0].chosen.expectedSpeedUp).to.equal(1);
  });

  it('is made for all samples together: the mean meets the target, each layer for itself need not', async () => {
    const {query, key, value} = textSample(1);
    const flat: AttentionSample = {query: mul(query, 0) as Tensor4D, key, value};
    const samples = [{query, key, value}, flat];
    for (const target of [{maxRelativeL1: 0.35}, {attentionMass: 0.85}] as TuningTarget[]) {
      const tuned = await tunePBSAttention(samples, target, options);
      expect(tuned).to.have.length(2);
      const losses = tuned.map(({chosen}) =>
        'maxRelativeL1' in target ? chosen.relativeL1 : (1 - chosen.attentionMass!) * (0.35 / 0.15),
      );
      expect((losses[0] + losses[1]) / 2)
        .to.be.above(0)
        .and.at.most(0.8 * 0.35);
      const [sharp, even] = tuned.map(({chosen}) => chosen.density);
      expect(sharp, 'attention to every key needs every block').to.be.below(even);
      // No change of one layer is cheaper and within the target.
      tuned.forEach(({chosen, candidates}, layer) => {
        for (const other of candidates) {
          if (other.expectedTime >= chosen.expectedTime) continue;
          const loss = 'maxRelativeL1' in target ? other.relativeL1 : (1 - other.attentionMass!) * (0.35 / 0.15);
          expect((loss + losses[1 - layer]) / 2).to.be.above(0.8 * 0.35);
        }
      });
    }
  });

  it('names what it cannot take', async () => {
    const given = textSample(1, 64);
    const wrong: Array<[unknown, unknown, RegExp]> = [
      [{maxRelativeL1: 0}, {}, /^tunePBSAttention: target: got \{maxRelativeL1: 0\}; takes a maxRelativeL1 above 0/],
      [undefined, {}, /target: got undefined; takes \{maxRelativeL1/],
      [{attentionMass: 1.5}, {}, /target: got \{attentionMass: 1.5\}; takes an attentionMass from 0 to 1/],
      [{}, {}, /target: got \{\}; takes \{maxRelativeL1: number\} or \{attentionMass: number\}/],
      [{maxRelativeL1: 0.1, attentionMass: 0.9}, {}, /target: .*takes \{maxRelativeL1: number\} or/],
      [{maxRelativeL1: '0.1'}, {}, /target: got \{maxRelativeL1: '0.1'\}; takes a maxRelativeL1 above 0/],
      [{maxRelativeL1: NaN}, {}, /target: got \{maxRelativeL1: NaN\}; takes a maxRelativeL1 above 0/],
      [{maxRelativeL1: 0.1, margin: 0}, {}, /target: got \{maxRelativeL1: 0.1, margin: 0\}; takes \{maxRelativeL1/],
      [{maxRelativeL1: 0.1}, {margin: null}, /margin: got null; takes a number/],
      [{maxRelativeL1: 0.1}, {thresholds: []}, /thresholds: got an empty array; takes an array of one or more/],
      [{maxRelativeL1: 0.1}, 5, /options: got 5; takes an object/],
      [{maxRelativeL1: 0.1}, {margin: '0.1'}, /margin: got '0.1'; takes a number/],
      [{maxRelativeL1: 0.1}, {thresholds: 0.9}, /thresholds: got 0.9; takes an array/],
      [{maxRelativeL1: 0.1}, {margin: 1}, /margin: got 1; takes a number from 0 to below 1/],
      [{maxRelativeL1: 0.1}, {thresholds: [2]}, /threshold: got 2; takes a number from 0 to 1/],
      [{maxRelativeL1: 0.1}, {threshold: 0.9}, /options: got 'threshold'; takes thresholds, margin, causal/],
      [{maxRelativeL1: 0.1}, {onProgress: 1}, /onProgress: got 1; takes a function/],
      [{maxRelativeL1: 0.1}, {signal: {}}, /signal: got Object; takes an AbortSignal/],
      [{maxRelativeL1: 0.1}, {estimate: 'mean'}, /estimate: got 'mean'; takes 'sampled' or 'pooled'/],
    ];
    for (const [target, tried, message] of wrong) {
      const refused = await tunePBSAttention(given, target as TuningTarget, tried as TuningOptions).then(
        () => '',
        (error: Error) => error.message,
      );
      expect(refused).to.match(message);
    }
    const half = {query: given.query} as AttentionSample;
    const refused = await tunePBSAttention(half, {maxRelativeL1: 0.1}).catch((error: Error) => error.message);
    expect(refused).to.match(/^tunePBSAttention: key: got undefined; takes a float32 tensor/);
    const collector = {samples: [given]} as unknown as AttentionSample;
    const mistaken = await tunePBSAttention(collector, {maxRelativeL1: 0.1}).catch((error: Error) => error.message);
    expect(mistaken).to.equal('tunePBSAttention: samples: got Object; takes {query, key, value} or an array of them.');
  });
});
