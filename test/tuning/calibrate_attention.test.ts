import {backend, getBackend, setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {AttentionCalibration, PBSAttentionReport} from '../../src/index';
import {calibrateAttention, flashAttention, pbsAttention, useAttentionCalibration} from '../../src/index';
import {backendCosts, backendDevice} from '../../src/kernels/backend_costs';
import {describeBackends} from '../setup/environment';
import {randomInputs, tensors} from '../reference/attention';

const dims = {headDim: 64, valueDim: 64};

function calibration(changes: Partial<AttentionCalibration['constants']> = {}): AttentionCalibration {
  return {
    version: 1,
    backend: getBackend() as AttentionCalibration['backend'],
    adapter: backendDevice().adapter,
    date: '2026-11-29T12:00:00.000Z',
    constants: {
      exactLaunch: 0.01,
      sparseLaunch: 0.1,
      sampleMultiplyAdd: 1e-9,
      float32: {multiplyAdds: 1e6, sparseFactor: 1},
      ...changes,
    },
  };
}

describeBackends('calibrated auto', (backendName) => {
  before(() => setBackend(backendName));
  afterEach(() => useAttentionCalibration(undefined));

  it('chooses by a calibration that was stored and given back', async () => {
    const [q, k, v] = tensors(randomInputs({length: 160, headDim: 8}, 71));
    const options = {blockSize: 16, keyBlockSize: 8, segmentSize: 32, threshold: 0};
    const reportOf = () => {
      let report: PBSAttentionReport | undefined;
      const output = pbsAttention(q, k, v, {...options, onReport: (given) => (report = given)});
      report!.dispose();
      return {...report!, output};
    };
    const stored = (given: AttentionCalibration) => JSON.parse(JSON.stringify(given)) as AttentionCalibration;

    const without = reportOf();
    expect(without.costBasis).to.equal(backendDevice().deviceClass);

    // A device on which launching is all that counts, and one on which the choice of blocks is free.
    useAttentionCalibration(stored(calibration({sparseLaunch: 1000})));
    const exact = reportOf();
    expect(exact).to.include({exactReason: 'auto', costBasis: 'calibration'});
    expect(Array.from(await exact.output.data())).to.deep.equal(Array.from(await flashAttention(q, k, v).data()));

    const free = {sparseLaunch: 0.01, sampleMultiplyAdd: 1e-15};
    useAttentionCalibration(stored(calibration({...free, float32: {multiplyAdds: 1000, sparseFactor: 1}})));
    const sparse = reportOf();
    expect(sparse.exactReason).to.equal(undefined);
    expect(sparse.costBasis).to.equal('calibration');
    expect(Array.from(await sparse.output.data())).to.deep.equal(
      Array.from(await pbsAttention(q, k, v, {...options, auto: false}).data()),
    );

    // A model that keeps all blocks gains nothing there.
    expect(reportOfDensity(1)).to.equal('auto');
    expect(reportOfDensity(0.1)).to.equal(undefined);
    function reportOfDensity(expectedDensity: number) {
      let report: PBSAttentionReport | undefined;
      pbsAttention(q, k, v, {...options, expectedDensity, onReport: (given) => (report = given)}).dispose();
      report!.dispose();
      return report!.exactReason;
    }

    useAttentionCalibration(undefined);
    expect(reportOf().costBasis).to.equal(without.costBasis);
  });

  it('has the costs that were measured', () => {
    const plain = backendCosts(dims, 'float32');
    const {constants} = calibration();
    useAttentionCalibration(calibration());
    const costs = backendCosts(dims, 'float32');
    expect(costs.multiplyAdds).to.be.closeTo(1e6, 1);
    expect(costs.record).to.equal(constants.exactLaunch);
    expect(costs.sampledPrograms * costs.record).to.be.closeTo(constants.sparseLaunch, 1e-9);
    expect(costs.sampleMultiplyAdd).to.equal(constants.sampleMultiplyAdd);
    // The paper's estimate goes the way of the sampled one.
    expect(costs.pooledValue / plain.pooledValue).to.be.closeTo(
      costs.sampleMultiplyAdd / plain.sampleMultiplyAdd,
      1e-6 * (costs.pooledValue / plain.pooledValue),
    );
  });

  it('refuses what is none, and one of another device', () => {
    const good = calibration();
    const use = (given: unknown) => () => useAttentionCalibration(given as AttentionCalibration);
    const constants = (changes: object) => ({...good, constants: {...good.constants, ...changes}});
    const other = backendName === 'cpu' ? 'webgpu' : 'cpu';
    const refused: Array<[unknown, string]> = [
      [null, 'calibration: got null'],
      ['{}', "calibration: got '{}'"],
      [{}, 'calibration.version: got undefined'],
      [{...good, version: 2}, 'calibration.version: got 2; takes 1: calibrate anew'],
      [{...good, backend: 'wasm'}, "calibration.backend: got 'wasm'; takes cpu, webgl, webgpu"],
      [{...good, backend: other}, `calibration: got one of ${other}; takes one of the active backend, ${backendName}`],
      [{...good, adapter: 'another'}, "calibration: got one of the adapter 'another'; takes one of '"],
      [{...good, adapter: 'a'.repeat(301)}, 'calibration.adapter: got'],
      [{...good, date: 'yesterday'}, "calibration.date: got 'yesterday'"],
      [{...good, constants: undefined}, 'calibration.constants: got undefined'],
      [constants({exactLaunch: 0}), 'calibration.constants.exactLaunch: got 0; takes a finite number above 0'],
      [constants({sparseLaunch: NaN}), 'calibration.constants.sparseLaunch: got NaN'],
      [constants({sampleMultiplyAdd: -1}), 'calibration.constants.sampleMultiplyAdd: got -1'],
      [constants({float32: {multiplyAdds: Infinity, sparseFactor: 1}}), 'constants.float32.multiplyAdds: got Infinity'],
      [constants({float16: null}), 'calibration.constants.float16: got null'],
    ];
    for (const [given, message] of refused) {
      expect(use(given), message).to.throw('useAttentionCalibration: ').with.property('message').that.includes(message);
    }
    expect(use(good)).not.to.throw();
  });
});

describeBackends('calibrateAttention', (backendName) => {
  before(() => setBackend(backendName));
  afterEach(() => useAttentionCalibration(undefined));

  it('measures constants that auto can use, and leaves nothing behind', async function () {
    this.timeout(120_000);
    const before = backend().numDataIds();
    // One in use stays in use, and has no say in what is measured.
    useAttentionCalibration(calibration({float32: {multiplyAdds: 1, sparseFactor: 99}}));
    const measured = await calibrateAttention();
    expect(backendCosts(dims, 'float32').sparseFactor).to.equal(99);
    expect(measured.constants.float32.multiplyAdds).to.be.above(100);
    expect(measured.constants.float32.sparseFactor).to.be.below(99);
    expect(backend().numDataIds()).to.equal(before);
    expect(measured).to.include({version: 1, backend: backendName, adapter: backendDevice().adapter});
    expect(Date.parse(measured.date)).to.be.closeTo(Date.now(), 600_000);
    useAttentionCalibration(JSON.parse(JSON.stringify(measured)) as AttentionCalibration);
    for (const value of Object.values(backendCosts(dims, 'float32')))
      expect(value).to.be.at.least(0).and.below(Infinity);
    const {exactLaunch, sparseLaunch} = measured.constants;
    expect(sparseLaunch).to.be.at.least(exactLaunch);
  });

  it('stops, and refuses options that it does not know', async () => {
    const before = backend().numDataIds();
    const stopped = calibrateAttention({signal: AbortSignal.abort(new Error('enough'))});
    expect(await stopped.catch((error: Error) => error.message)).to.equal('enough');
    const unknown = calibrateAttention({budget: 1} as never);
    expect(await unknown.catch((error: Error) => error.message)).to.include("options: got 'budget'; takes signal");
    expect(backend().numDataIds()).to.equal(before);
  });
});
