import type {TensorInfo} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {AttentionRequest} from '../../src/attention/attention_call';
import {
  AttentionWithLogSumExp,
  FlashAttention,
  FlashAttentionGrad,
  PBSAttention,
  PBSAttentionGrad,
  PBSAttentionPlan,
} from '../../src/attention/attention_kernels';
import {attentionKernels} from '../../src/attention/driver';
import type {StageSet} from '../../src/attention/stage_set';
import {cpuCosts} from '../../src/kernels/cpu/costs';

const info = (...shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
const query = info(1, 2, 512, 16);
const value = info(1, 2, 512, 16);
const inputs = {query, key: query, value};
const gradientInputs = {...inputs, output: query, dy: query};
const plan = {keyIndices: info(1, 2, 512), blockMask: info(1, 2, 8, 8)};
const attrs = {
  ...{scale: 0.25, causal: true, precision: 'float32', queryOffset: 0, auto: false, withMass: false},
  ...{blockSize: 64, keyBlockSize: 64, segmentSize: 128, threshold: 0.9, permute: true, estimate: 'sampled'},
};

/** Stages that do nothing but say what ran, and which handles and tensors are there. One of them can fail. */
class Recorder {
  readonly ran: string[] = [];
  readonly held = new Set<string>();
  readonly tensors = new Set<TensorInfo>();
  request?: AttentionRequest;
  failAt?: string;
  private made = 0;

  readonly stages: StageSet<object, string, string> = {
    backendName: 'recorder',
    costs: () => cpuCosts,
    exactBlockSize: Math.max,
    check: (_, request) => {
      this.request = request;
      this.step('check');
    },
    open: (_backend, _request, scratch) => {
      this.step('open');
      return scratch(this.make('call'));
    },
    free: (_, handle) => expect(this.held.delete(handle), `${handle} is freed once`).to.equal(true),
    freeTensor: (_, tensor) => expect(this.tensors.delete(tensor), 'a tensor is freed once').to.equal(true),
    throwIfLost: () => this.step('throwIfLost'),
    permute: () => {
      this.step('permute');
      return {keyIndices: this.make('keyIndices'), keyScores: this.make('keyScores')};
    },
    scoreBlocks: (_call, _rule, _keyIndices, scratch) => {
      this.step('scoreBlocks');
      return {scores: this.make('scores'), masses: () => scratch(this.make('masses'))};
    },
    selectBlocks: () => {
      this.step('selectBlocks');
      return this.make('blockLists');
    },
    keptMass: () => {
      this.step('keptMass');
      return this.make('keptMass');
    },
    attend: (_, sparse) => {
      this.step(sparse ? 'attend to blocks' : 'attend');
      return this.tensor();
    },
    attendWithLogSumExp: () => {
      this.step('attend with log-sum-exp');
      return [this.tensor(), this.tensor()];
    },
    attendGradients: (_, sparse) => {
      this.step(sparse ? 'gradients over blocks' : 'gradients');
      return [this.tensor(), this.tensor(), this.tensor()];
    },
    loadPlan: (_call, _plan, scratch) => {
      this.step('loadPlan');
      return {keyIndices: 'of the caller', blockLists: scratch(this.make('blockLists'))};
    },
    storePlan: (_call, {keyIndices, blockLists, keptMass}, scratch) => {
      [keyIndices, blockLists, ...(keptMass ? [keptMass] : [])].forEach(scratch);
      this.step('storePlan');
      return [this.tensor(), this.tensor(), ...(keptMass ? [this.tensor()] : [])];
    },
  };

  run(kernel: string, kernelInputs: object, changes: object = {}): TensorInfo | TensorInfo[] {
    const {kernelFunc} = attentionKernels(this.stages).find(({kernelName}) => kernelName === kernel)!;
    return kernelFunc({inputs: kernelInputs as never, backend: {}, attrs: {...attrs, ...changes} as never});
  }

  private step(name: string): void {
    this.ran.push(name);
    if (name === this.failAt) throw new Error(`${name} failed`);
  }

  private make(name: string): string {
    const handle = `${name} ${++this.made}`;
    this.held.add(handle);
    return handle;
  }

  private tensor(): TensorInfo {
    const tensor = info(1);
    this.tensors.add(tensor);
    return tensor;
  }
}

const planning = ['permute', 'scoreBlocks', 'selectBlocks'];
interface Case {
  kernel: string;
  inputs: object;
  changes?: object;
  stages: string[];
  outputs: number;
}
const cases: Record<string, Case> = {
  'exact attention': {kernel: FlashAttention, inputs, stages: ['attend'], outputs: 1},
  'exact attention with logarithms of sums': {
    kernel: AttentionWithLogSumExp,
    inputs,
    stages: ['attend with log-sum-exp'],
    outputs: 2,
  },
  'block-sparse attention': {kernel: PBSAttention, inputs, stages: [...planning, 'attend to blocks'], outputs: 1},
  'a threshold of 1': {kernel: PBSAttention, inputs, changes: {threshold: 1}, stages: ['attend'], outputs: 1},
  'one segment': {kernel: PBSAttention, inputs, changes: {segmentSize: 512}, stages: ['attend'], outputs: 1},
  'a short sequence with auto': {
    kernel: PBSAttention,
    inputs: {query: info(1, 1, 300, 8), key: info(1, 1, 300, 8), value: info(1, 1, 300, 8)},
    changes: {auto: true},
    stages: ['attend'],
    outputs: 1,
  },
  'a plan that is given': {
    kernel: PBSAttention,
    inputs: {...inputs, ...plan},
    changes: {auto: true},
    stages: ['loadPlan', 'attend to blocks'],
    outputs: 1,
  },
  'gradients of exact attention': {
    kernel: FlashAttentionGrad,
    inputs: gradientInputs,
    stages: ['gradients'],
    outputs: 3,
  },
  'gradients of block-sparse attention': {
    kernel: PBSAttentionGrad,
    inputs: gradientInputs,
    stages: [...planning, 'gradients over blocks'],
    outputs: 3,
  },
  'gradients by a plan that is given': {
    kernel: PBSAttentionGrad,
    inputs: {...gradientInputs, ...plan},
    stages: ['loadPlan', 'gradients over blocks'],
    outputs: 3,
  },
  'a plan': {
    kernel: PBSAttentionPlan,
    inputs: {query, key: query},
    stages: [...planning, 'storePlan'],
    outputs: 2,
  },
  'a plan with what it keeps': {
    kernel: PBSAttentionPlan,
    inputs: {query, key: query},
    changes: {withMass: true},
    stages: [...planning, 'keptMass', 'storePlan'],
    outputs: 3,
  },
};

describe('driver', () => {
  for (const [name, {kernel, inputs, changes, stages, outputs}] of Object.entries(cases)) {
    it(`runs ${name} in order, and frees what it made but the outputs`, () => {
      const recorder = new Recorder();
      recorder.run(kernel, inputs, changes);
      expect(recorder.ran).to.deep.equal(['check', 'open', ...stages, 'throwIfLost']);
      expect([...recorder.held]).to.deep.equal([]);
      expect(recorder.tensors.size).to.equal(outputs);
    });

    for (const failAt of ['check', 'open', ...stages, 'throwIfLost']) {
      it(`leaves nothing where ${failAt} fails: ${name}`, () => {
        const recorder = new Recorder();
        recorder.failAt = failAt;
        expect(() => recorder.run(kernel, inputs, changes)).to.throw(`${failAt} failed`);
        // A stage may have failed because the device was lost.
        const asksAfterwards = failAt === 'open' || stages.includes(failAt);
        expect(recorder.ran.slice(-2)).to.include.members(asksAfterwards ? [failAt, 'throwIfLost'] : [failAt]);
        expect(recorder.ran.at(-1)).to.equal(asksAfterwards ? 'throwIfLost' : failAt);
        expect([...recorder.held]).to.deep.equal([]);
        expect(recorder.tensors.size).to.equal(0);
      });
    }
  }

  it('writes the plan of exact attention down without a stage', () => {
    const recorder = new Recorder();
    const written = recorder.run(PBSAttentionPlan, {query, key: query}, {threshold: 1, withMass: true});
    expect(recorder.ran).to.deep.equal(['check']);
    expect(written).to.have.length(3);
  });

  it('says how long attention should take', () => {
    // The CPU backend's rate, in multiply-adds a millisecond; 2 heads, half of the square, 16 values of key and of value.
    const time = (length: number) => (2 * length * ((length + 1) / 2) * 32) / cpuCosts.multiplyAdds;
    const timeOf = (kernel: string, length: number, changes: object = {}) => {
      const recorder = new Recorder();
      const long = info(1, 2, length, 16);
      recorder.run(kernel, {query: long, key: long, value: long, output: long, dy: long}, changes);
      return recorder.request!.expectedTime;
    };
    expect(timeOf(FlashAttention, 4096)).to.be.closeTo(time(4096), 1e-9);
    expect(timeOf(FlashAttentionGrad, 4096)).to.be.closeTo(time(4096), 1e-9);
    expect(timeOf(PBSAttention, 4096, {threshold: 1})).to.be.closeTo(time(4096), 1e-9);
    expect(timeOf(PBSAttention, 4096), 'of fewer blocks').to.be.within(0.2 * time(4096), 0.9 * time(4096));
  });

  it('tells the backend what is asked for, with one geometry', () => {
    const recorder = new Recorder();
    recorder.run(PBSAttentionGrad, gradientInputs);
    const {op, geometry, rule, result} = recorder.request!;
    expect(op).to.equal('gradient of pbsAttention');
    expect(result).to.equal('gradients');
    expect(rule).to.deep.include({threshold: 0.9, permute: true, estimate: 'sampled'});
    expect(geometry).to.include({blockSize: 64, keyBlockSize: 64, segmentSize: 128, queryBlocks: 8});
    recorder.run(PBSAttention, inputs, {threshold: 1});
    expect(recorder.request!.rule, 'exact attention has no rule').to.equal(undefined);
    expect(recorder.request!.geometry).to.include({blockSize: 512, queryBlocks: 1});
  });
});
