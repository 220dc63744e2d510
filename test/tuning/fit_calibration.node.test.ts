import type {Tensor, TensorInfo} from '@tensorflow/tfjs-core';
import {scalar, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {blockGeometry} from '../../src/attention/block_geometry';
import {countBlocks, exactTime, sparsePays, timeOfBlocks} from '../../src/attention/cost_model';
import {deviceClassOf, deviceCosts, useConstants} from '../../src/attention/device_costs';
import {webglCosts} from '../../src/kernels/webgl/costs';
import {costsOf} from '../../src/kernels/webgpu/costs';
import {largestSize, sizes} from '../../src/tuning/calibration_cases';
import {fitLaunch, fitPrecision} from '../../src/tuning/fit_calibration';
import {measure} from '../../src/tuning/calibrate_attention';
import {
  chooseCalls,
  fewerCalls,
  medianOfTimes,
  shortestCall,
  timeCase,
  timeOfCall,
  timeRounds,
} from '../../src/tuning/time_rounds';

const cut = {blockSize: 128, keyBlockSize: 64, segmentSize: 256};

function geometryOf(length: number, heads = 8) {
  const info: TensorInfo = {shape: [1, heads, length, 64], dtype: 'float32', dataId: {}};
  return blockGeometry(info, info, cut);
}

describe('fitting a calibration', () => {
  const geometry = geometryOf(2048);
  const {fewest, visible} = countBlocks(geometry, true);
  const blocks = {geometry, few: fewest, many: 0.9 * visible};
  /** A device 7 times slower than ours, on which sparse attention costs more and choosing much more. */
  const truth = {
    ...webglCosts,
    multiplyAdds: webglCosts.multiplyAdds / 7,
    sparseFactor: 1.4,
    record: 0.3,
    sampledPrograms: 4,
    fixed: webglCosts.fixed,
    proxyMultiplyAdd: webglCosts.proxyMultiplyAdd * 20,
    sampleMultiplyAdd: webglCosts.sampleMultiplyAdd * 20,
  };
  const timeOf = (kept: number) => timeOfBlocks(geometry, {kept, visible}, {estimate: 'sampled'}, truth);
  const times = {exact: exactTime(geometry, true, truth), few: timeOf(fewest), many: timeOf(0.9 * visible)};

  it('finds the constants of a device from its times, and auto then chooses as with those', () => {
    const fitted = fitPrecision(times, blocks, webglCosts, 1.2);
    expect(fitted.isPlausible).to.equal(true);
    expect(fitted.multiplyAdds / truth.multiplyAdds).to.be.closeTo(1, 1e-6);
    expect(fitted.sparseFactor).to.be.closeTo(1.4, 1e-6);
    expect(fitted.sampleMultiplyAdd / truth.sampleMultiplyAdd).to.be.closeTo(1, 1e-6);
    const backend = {};
    useConstants(backend, {exactLaunch: 0.3, sparseLaunch: 1.2, float32: fitted, ...fitted});
    const device = {adapter: 'test', deviceClass: 'unknown GPU'} as const;
    const costs = deviceCosts(backend, device, 'float32', webglCosts);
    const rules = {threshold: 0.9, causal: true, estimate: 'sampled'} as const;
    for (let length = 256; length <= 32_768; length += 256) {
      for (const heads of [1, 8]) {
        const call = geometryOf(length, heads);
        expect(sparsePays(call, rules, costs), `${length}`).to.equal(sparsePays(call, rules, truth));
      }
    }
  });

  it('finds what choosing blocks costs where few of them are recorded for longer than they are computed', () => {
    const fitted = fitPrecision(
      {...times, few: 7, fewIsRecording: true},
      blocks,
      {...webglCosts, sparseFactor: 1.4},
      1.2,
    );
    expect(fitted.isPlausible).to.equal(true);
    expect(fitted.sparseFactor).to.equal(1.4);
    expect(fitted.sampleMultiplyAdd / truth.sampleMultiplyAdd).to.be.closeTo(1, 1e-6);
  });

  it('keeps the ratios of the class where times cannot be', () => {
    const disturbed = [
      {...times, many: times.few},
      {...times, many: times.few - 1},
      {...times, many: 100 * times.many},
      {...times, few: NaN},
      {...times, few: 0},
      {...times, many: Infinity},
      {...times, few: -1, many: -1},
    ];
    for (const given of disturbed) {
      const fitted = fitPrecision(given, blocks, webglCosts, 1.2);
      expect(fitted.isPlausible, JSON.stringify(given)).to.equal(false);
      expect(fitted.multiplyAdds / truth.multiplyAdds).to.be.closeTo(1, 1e-6);
      expect(fitted.sparseFactor).to.be.within(0.7, 2.5);
      expect(fitted.sampleMultiplyAdd / webglCosts.sampleMultiplyAdd).to.be.within(7 / 5, 35);
    }
    for (const exact of [0, -1, NaN, Infinity]) {
      expect(() => fitPrecision({...times, exact}, blocks, webglCosts, 1.2)).to.throw(
        `calibrateAttention: times: got ${exact} ms for exact attention; takes a clock that goes on.`,
      );
    }
  });

  it('tells a call from the wait for the device', () => {
    const launch = fitLaunch(5.2, 5 + 16 * 0.2, 16);
    expect(launch.call).to.be.closeTo(0.2, 1e-9);
    expect(launch.wait).to.be.closeTo(5, 1e-9);
    for (const [one, several] of [
      [5, 4],
      [5, NaN],
      [NaN, 5],
      [0, 0],
      [1, 1e9],
    ]) {
      const {call, wait} = fitLaunch(one, several, 16);
      expect(call, `${one}, ${several}`).to.be.above(0);
      expect(wait, `${one}, ${several}`).to.be.at.least(0);
    }
  });

  it('takes off what fewer calls take, or the wait where there is one call, and no more than half', () => {
    expect(timeOfCall({fewer: 9, all: 17}, 6, 99), '4 calls more').to.equal(2);
    expect(timeOfCall({fewer: 90, all: 10}, 4, 99)).to.equal(1.25);
    expect(timeOfCall({fewer: 1, all: 12}, 4, 99), 'not more than all of them').to.equal(3);
    expect(timeOfCall({fewer: 10, all: 10}, 1, 2)).to.equal(8);
    expect(timeOfCall({fewer: 10, all: 10}, 1, 90)).to.equal(5);
    expect(timeOfCall({fewer: NaN, all: NaN}, 4, 2)).to.satisfy(Number.isNaN);
  });

  it('takes the median of times that can be', () => {
    expect(medianOfTimes([3, NaN, 1, 0, -5, Infinity, 2])).to.equal(2);
    expect(medianOfTimes([4, 1])).to.equal(1);
    expect(Number.isNaN(medianOfTimes([0, NaN]))).to.equal(true);
  });
});

describe('timing by rounds', () => {
  before(() => setBackend('cpu'));

  /** A device whose calls take as long as they say, on a clock of its own. */
  class FakeDevice {
    time = 0;
    rounds = 0;
    computed = async () => {};
    now = () => this.time;
    takes(ms: () => number) {
      return {
        calls: 1,
        run: (): Tensor => {
          this.time += ms();
          return scalar(0);
        },
      };
    }
  }
  const limits = {budget: 300, expected: 10, isEnough: () => false};

  it('stays within its budget, and takes one round where even that is too long', async () => {
    const device = new FakeDevice();
    await timeRounds(device, [device.takes(() => 40), device.takes(() => 30)], {...limits, expected: 70});
    expect(device.time).to.equal(280);
    const slow = new FakeDevice();
    const times = await timeRounds(slow, [slow.takes(() => 400)], {...limits, expected: 400});
    expect(times).to.deep.equal([{fewer: 400, all: 400, recorded: 400}]);
    expect(slow.time).to.equal(400);
  });

  it('stops early where the times say something, and not before half of the budget', async () => {
    const device = new FakeDevice();
    await timeRounds(device, [device.takes(() => 20)], {...limits, expected: 20, isEnough: () => true});
    expect(device.time).to.equal(160);
  });

  it('is not misled by a load that comes and goes', async () => {
    const device = new FakeDevice();
    let round = 0;
    const cases = [device.takes(() => (++round % 3 === 2 ? 50 : 4)), device.takes(() => (round % 3 === 2 ? 90 : 8))];
    const medians = await timeRounds(device, cases, {...limits, budget: 1000, expected: 12});
    expect(medians.map(({all}) => all)).to.deep.equal([4, 8]);
  });

  it('times the calls and fewer of them, each with a wait', async () => {
    const device = new FakeDevice();
    device.computed = async () => void (device.time += 2);
    const medians = await timeRounds(device, [{...device.takes(() => 3), calls: 5}], limits);
    expect(medians).to.deep.equal([{fewer: 8, all: 17, recorded: 3}]);
  });

  it('says so where the clock stands still', async () => {
    const clock = {now: () => 7, computed: async () => {}};
    const failure = await measure(clock).catch((error: Error) => error.message);
    expect(failure).to.include('calibrateAttention: times: got ').and.include('takes a clock that goes on');
  });
});

describe('a first look at a call', () => {
  before(() => setBackend('cpu'));

  const look = (wait: () => number, ms: number) => {
    let time = 0;
    const run = (): Tensor => {
      time += ms;
      return scalar(0);
    };
    const clock = {now: () => time, computed: async () => void (time += wait())};
    return shortestCall(clock, run, {longest: 10});
  };

  it('does not count the wait, so that a fast device is measured on a size that keeps it busy', async () => {
    expect(await look(() => 3, 0.2)).to.be.closeTo(0.2, 1e-9);
    let waits = 0;
    // A wait of 1 to 3 ms, now this and now that: what is left of it is multiplied by the work of the next size.
    const jitter = () => 1 + (2 * (++waits % 3)) / 2;
    expect(await look(jitter, 0.2)).to.be.closeTo(0.2, 1e-9);
  });

  it('counts it where the call takes long, and ends where the clock stands still', async () => {
    expect(await look(() => 3, 40)).to.equal(43);
    expect(await look(() => 0, 0)).to.equal(0);
  });
});

describe('how many calls are timed in a row', () => {
  before(() => setBackend('cpu'));

  /** A call takes `ms`, and the wait for it `wait` more. */
  const chosen = async (wait: number, ms: number[]) => {
    let time = 0;
    const clock = {now: () => time, computed: async () => void (time += wait)};
    const cases = ms.map((taken) => ({
      calls: 1,
      run: (): Tensor => {
        time += taken;
        return scalar(0);
      },
    }));
    const expected = await chooseCalls(clock, cases);
    const start = time;
    for (const {run, calls} of cases) {
      await timeCase(clock, {run, calls});
      if (calls > 1) await timeCase(clock, {run, calls: fewerCalls(calls)});
    }
    return {calls: cases.map(({calls}) => calls), expected, took: time - start};
  };

  it('is as many as last longer than a wait, whatever that takes', async () => {
    for (const wait of [0, 0.1, 2.5, 15]) {
      const {calls, expected, took} = await chosen(wait, [0.2, 0.8, 3, 12, 40]);
      expect(calls).to.deep.equal([40, 10, 3, 2, 1]);
      expect(expected).to.be.closeTo(took, 1e-9);
    }
    expect((await chosen(1, [50, 0.01])).calls, 'at least two of the first').to.deep.equal([2, 1]);
  });

  it('is one where the clock stands still', async () => {
    expect(await chosen(0, [0, 0, 0])).to.deep.equal({calls: [1, 1, 1], expected: 0, took: 0});
  });
});

describe('the size that is measured', () => {
  const on = (launch: number, rate: number) =>
    largestSize(launch, async ({heads, length, headDim}) => launch + (heads * length ** 2 * headDim) / rate);

  it('is the largest on a fast device, however long launching takes', async () => {
    for (const launch of [0.02, 0.2, 2]) expect(await on(launch, 1.4e10)).to.equal(sizes.at(-1));
  });

  it('takes no longer than it should on a slow one', async () => {
    expect(await on(0.2, 1e6)).to.equal(sizes[0]);
    expect(await on(0.2, 5e7)).to.equal(sizes[1]);
  });

  it('is the smallest where the clock stands still', async () => {
    expect(await largestSize(0, async () => 0)).to.equal(sizes[0]);
  });
});

describe('classes of devices', () => {
  const names: Array<[string, ReturnType<typeof deviceClassOf>]> = [
    ['nvidia hopper', 'discrete GPU'],
    ['ANGLE (NVIDIA, NVIDIA GeForce RTX 3060 Direct3D11 vs_5_0 ps_5_0, D3D11)', 'discrete GPU'],
    ['ANGLE (AMD, AMD Radeon RX 6800 XT (navi21), OpenGL 4.6)', 'discrete GPU'],
    ['ANGLE (Intel, Intel(R) Arc(TM) A770 Graphics, D3D11)', 'discrete GPU'],
    ['intel xe-lpg', 'integrated GPU'],
    ['ANGLE (Intel, Mesa Intel(R) UHD Graphics 620 (KBL GT2), OpenGL 4.6)', 'integrated GPU'],
    ['apple metal-3', 'integrated GPU'],
    ['Apple GPU', 'integrated GPU'],
    ['qualcomm adreno-7xx', 'integrated GPU'],
    ['Mali-G78', 'integrated GPU'],
    ['ANGLE (AMD, AMD Radeon(TM) Graphics, D3D11)', 'integrated GPU'],
    ['google swiftshader', 'software'],
    ['ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (Subzero)), SwiftShader driver)', 'software'],
    ['llvmpipe (LLVM 17.0.6, 256 bits)', 'software'],
    ['unnamed', 'unknown GPU'],
  ];
  for (const [name, expected] of names) {
    it(`takes ${name} for ${expected}`, () => {
      expect(deviceClassOf(name)).to.equal(expected);
    });
  }
});

describe('a calibration with float16', () => {
  const constants = {
    exactLaunch: 0.01,
    sparseLaunch: 0.1,
    sampleMultiplyAdd: 1e-10,
    float32: {multiplyAdds: 1e9, sparseFactor: 1.1},
    float16: {multiplyAdds: 4e9, sparseFactor: 1.3},
  };
  const backendWith = (...features: string[]) => {
    const limits = {maxComputeWorkgroupStorageSize: 49_152};
    const backend = {device: {features: new Set(features), limits, adapterInfo: {vendor: 'test'}}};
    useConstants(backend, constants);
    return backend as unknown as WebGPUBackend;
  };
  const dims = {headDim: 128, valueDim: 128};

  it('counts where the device multiplies float16', () => {
    const cases = [
      [['shader-f16'], 'float16', constants.float16],
      [[], 'float16', constants.float32],
      [['shader-f16'], 'float32', constants.float32],
    ] as const;
    for (const [features, precision, expected] of cases) {
      const costs = costsOf(backendWith(...features), dims, precision);
      expect(costs.multiplyAdds / expected.multiplyAdds).to.be.closeTo(1, 1e-9);
      expect(costs.sparseFactor).to.equal(expected.sparseFactor);
    }
  });
});
