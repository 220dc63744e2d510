import type {BackendTimingInfo, Tensor} from '@tensorflow/tfjs-core';
import {backend, env, profile, setBackend, tidy, time} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention, pbsAttention} from '../../src/index';
import {runExtended} from '../../src/kernels/webgpu/runtime/extended_program';
import {AttentionProgram} from '../../src/kernels/webgpu/runtime/program';
import {describeBackends} from '../setup/environment';
import {randomInputs, tensors} from '../reference/attention';

type Info = BackendTimingInfo & {getExtraProfileInfo?(): string};

/** Names and milliseconds of the programs that tfjs has timed, as its profiler shows them. */
function programsOf(info: string): Map<string, number> {
  return new Map(
    info.split(', ').map((part): [string, number] => {
      const [name, ms] = part.split(': ');
      return [name, Number(ms)];
    }),
  );
}

/** What each backend cannot tell, tfjs says itself. */
const tellsTimes = () =>
  backend().timerAvailable() &&
  (!('gpgpu' in backend()) || env().getNumber('WEBGL_DISJOINT_QUERY_TIMER_EXTENSION_RELIABLE') > 0);

describeBackends('tf.time and tf.profile', (backendName) => {
  before(() => setBackend(backendName));
  const options = {blockSize: 32, keyBlockSize: 16, segmentSize: 32, threshold: 0.8, auto: false};
  const calls = () => {
    const [q, k, v] = tensors(randomInputs({heads: 2, length: 160, headDim: 16}, 81));
    return {exact: () => flashAttention(q, k, v), sparse: () => pbsAttention(q, k, v, options)};
  };

  it('have the time of every program', async function () {
    if (!tellsTimes()) this.skip();
    for (const [name, call] of Object.entries(calls())) {
      // Compiled before.
      await call().data();
      const info = (await time(() => tidy(() => void call()))) as Info;
      expect(info.kernelMs, name).to.be.above(0);
      if (backendName === 'cpu') continue;
      const programs = programsOf(info.getExtraProfileInfo!());
      const sum = [...programs.values()].reduce((a, b) => a + b, 0);
      expect(sum, `${name}: ${[...programs.keys()].join()}`).to.be.above(0);
      const stages = name === 'exact' ? ['Attend'] : ['Keys', 'Mass', 'Blocks', 'Attend'];
      for (const stage of stages) {
        expect(
          [...programs.keys()].some((program) => program.includes(stage)),
          `${name}, ${stage}: ${[...programs.keys()].join()}`,
        ).to.equal(true);
      }
    }
  });

  it('have that of the kernel', async function () {
    if (!tellsTimes()) this.skip();
    const {sparse} = calls();
    await sparse().data();
    const {kernels} = await profile(() => tidy(sparse) as Tensor);
    const [kernel] = kernels.filter(({name}) => name === 'PBSAttention');
    const {kernelTimeMs} = kernel as {kernelTimeMs: number};
    expect(await kernelTimeMs).to.be.above(0);
  });
});

/** Sums of halves of 1, 1/2, …: a fast GPU takes a fifth of a millisecond, and its timestamps come in steps of a tenth. */
class LongSum extends AttentionProgram<object> {
  constructor() {
    super({name: 'LongSum', inputs: {}, outputShape: [4096], variant: {}});
  }

  protected shader(): string {
    return `
fn main(index : i32) {
  let place = i32(workgroupId.x * 64u + localIndex);
  var sum = 0.0;
  for (var i = 0; i < 100000; i++) { sum = sum * 0.5 + f32(uniforms.invocations > place); }
  if (place < uniforms.invocations) { result[place] = sum; }
}`;
  }
}

describeBackends('tf.time of a program with extensions', (backendName) => {
  if (backendName !== 'webgpu') return;
  before(() => setBackend('webgpu'));

  // As float16 runs; in software there are no extensions to speak of, and what is timed is the way of running.
  it('has its time, in a pass of its own', async function () {
    const webgpu = backend() as WebGPUBackend;
    if (!webgpu.timerAvailable()) this.skip();
    const run = () => {
      const output = webgpu.makeTensorInfo([4096], 'float32');
      runExtended(webgpu, new LongSum(), 64, output);
      webgpu.disposeData(output.dataId);
    };
    run();
    const info = (await webgpu.time(run)) as Info;
    expect([...programsOf(info.getExtraProfileInfo!()).keys()]).to.deep.equal(['LongSum']);
    expect(info.kernelMs).to.be.above(0);
  });
});
