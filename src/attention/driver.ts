import type {KernelConfig, KernelFunc, TensorInfo} from '@tensorflow/tfjs-core';
import {tensor} from '@tensorflow/tfjs-core';
import type {AttentionRequest, PlanRule} from './attention_call.js';
import type {FlashAttentionAttrs, PBSAttentionAttrs, PBSAttentionPlanAttrs} from './attention_kernels.js';
import {
  AttentionWithLogSumExp,
  FlashAttention,
  FlashAttentionGrad,
  PBSAttention,
  PBSAttentionGrad,
  PBSAttentionPlan,
} from './attention_kernels.js';
import type {BlockGeometry} from './block_geometry.js';
import {blockGeometry, firstVisibleBlock, isExact, visibleBlocks} from './block_geometry.js';
import {exactTime, planTimes, sparseTime, whyExact} from './cost_model.js';
import type {Take} from './scratch.js';
import {runWithScratch} from './scratch.js';
import type {BlockPlan, StageSet} from './stage_set.js';

/** What is asked of a kernel, and what tfjs runs it on. */
interface KernelRun<Backend, Attrs> extends Pick<AttentionRequest, 'op' | 'result' | 'inputs'> {
  backend: Backend;
  attrs: Attrs;
}

/** The kernels of a backend, made of its stages. */
export function attentionKernels<Backend, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
): KernelConfig[] {
  return new Driver(stages).kernels();
}

/**
 * Runs permute → score blocks → select blocks → attend. Unpermute is the identity, because queries stay in place and `attend`
 * writes each row where its query stands. The one place that decides what a call runs: exactly, by a plan that is given or by
 * one that it makes, with gradients or without.
 */
class Driver<Backend, Call, Indices, Scores> {
  constructor(private readonly stages: StageSet<Backend, Call, Indices, Scores>) {}

  kernels(): KernelConfig[] {
    const exact = (run: KernelRun<Backend, FlashAttentionAttrs>) => this.attention(run, this.exactRequest(run));
    const sparse = (run: KernelRun<Backend, PBSAttentionAttrs>) => this.attention(run, this.sparseRequest(run));
    const {releaseKept} = this.stages;
    return [
      {
        ...this.kernel(FlashAttention, 'flashAttention', 'output', exact),
        // tfjs calls it when the backend is removed.
        ...(releaseKept && {disposeFunc: (backend) => releaseKept(backend as Backend)}),
      },
      this.kernel(AttentionWithLogSumExp, 'attentionWithLogSumExp', 'logSumExp', exact),
      this.kernel(PBSAttention, 'pbsAttention', 'output', sparse),
      this.kernel(PBSAttentionPlan, 'pbsAttentionPlan', 'plan', this.plan.bind(this)),
      this.kernel(FlashAttentionGrad, 'gradient of flashAttention', 'gradients', exact),
      // In the form and over the blocks of the forward pass: the same inputs and attributes give the same plan again.
      this.kernel(PBSAttentionGrad, 'gradient of pbsAttention', 'gradients', sparse),
    ];
  }

  private kernel<Attrs>(
    kernelName: string,
    op: string,
    result: AttentionRequest['result'],
    body: (run: KernelRun<Backend, Attrs>) => TensorInfo | TensorInfo[],
  ): KernelConfig {
    const kernelFunc = (params: Pick<KernelRun<Backend, Attrs>, 'inputs' | 'backend' | 'attrs'>) =>
      body({op, result, ...params});
    return {kernelName, backendName: this.stages.backendName, kernelFunc: kernelFunc as unknown as KernelFunc};
  }

  private exactRequest(run: KernelRun<Backend, FlashAttentionAttrs>): AttentionRequest {
    const {backend, inputs, attrs} = run;
    const {query, key, value} = inputs;
    // Exact attention has no blocks that a user sees.
    const size = this.stages.exactBlockSize(query.shape[2], key.shape[2]);
    const {queryOffset, window} = attrs;
    const cut = {blockSize: size, keyBlockSize: size, segmentSize: size, queryOffset, window};
    const geometry = blockGeometry(query, key, cut, value);
    const costs = this.stages.costs(backend, geometry, attrs.precision);
    return requestOf(run, geometry, exactTime(geometry, attrs.causal, costs));
  }

  /** Exact where that is asked for or, with `auto`, expected to be no slower. */
  private sparseRequest(run: KernelRun<Backend, PBSAttentionAttrs>): AttentionRequest {
    const {backend, inputs, attrs} = run;
    const geometry = blockGeometry(inputs.query, inputs.key, attrs, inputs.value);
    const costs = this.stages.costs(backend, geometry, attrs.precision);
    if (inputs.keyIndices) {
      // How many blocks a plan keeps that is given, nobody knows here.
      return requestOf(run, geometry, exactTime(geometry, attrs.causal, costs));
    }
    if (whyExact(geometry, attrs, costs)) {
      return this.exactRequest(run);
    }
    const request = requestOf(run, geometry, sparseTime(geometry, attrs, costs));
    return {...request, rule: attrs, planTimes: planTimes(geometry, attrs, costs)};
  }

  /** The output, with logarithms of sums or without, or the gradients by query, key and value. */
  private attention({backend}: KernelRun<Backend, unknown>, request: AttentionRequest): TensorInfo | TensorInfo[] {
    const {stages} = this;
    const {rule, result, inputs} = request;
    const results = this.run(backend, request, (call, scratch) => {
      let plan: BlockPlan<Indices> | undefined;
      if (rule) {
        plan = this.planBlocks(backend, call, rule);
        [plan.keyIndices, plan.blockLists].forEach(scratch);
      } else if (inputs.keyIndices && inputs.blockMask) {
        plan = stages.loadPlan(call, {keyIndices: inputs.keyIndices, blockMask: inputs.blockMask}, scratch);
      }
      if (result === 'logSumExp') {
        return stages.attendWithLogSumExp(call);
      }
      return result === 'gradients' ? stages.attendGradients(call, plan) : [stages.attend(call, plan)];
    });
    return result === 'output' ? results[0] : results;
  }

  private plan(run: KernelRun<Backend, PBSAttentionPlanAttrs>): TensorInfo[] {
    const {backend, inputs, attrs} = run;
    const geometry = blockGeometry(inputs.query, inputs.key, attrs);
    const request = requestOf(run, geometry, 0);
    if (isExact(geometry, attrs)) {
      this.stages.check(backend, request);
      return exactPlan(geometry, attrs);
    }
    const costs = this.stages.costs(backend, geometry, attrs.precision);
    const times = planTimes(geometry, attrs, costs);
    return this.run(backend, {...request, rule: attrs, planTimes: times}, (call, scratch) =>
      this.stages.storePlan(call, this.planBlocks(backend, call, attrs, attrs.withMass), scratch),
    );
  }

  /** The first three stages, and on request what they kept. The caller frees the plan. */
  private planBlocks(
    backend: Backend,
    call: Call,
    rule: PlanRule,
    withMass = false,
  ): BlockPlan<Indices> & {keptMass?: Scores} {
    const {stages} = this;
    return this.withScratch(backend, (scratch, keep) => {
      const {keyScores, keyIndices} = stages.permute(call, rule);
      keep(keyIndices);
      if (keyScores) {
        scratch(keyScores);
      }
      const {scores, masses} = stages.scoreBlocks(call, rule, keyIndices, scratch);
      scratch(scores);
      const blockLists = keep(stages.selectBlocks(call, rule, scores, keyIndices));
      return {
        keyIndices,
        blockLists,
        ...(withMass && {keptMass: stages.keptMass(call, rule, masses(), blockLists)}),
      };
    });
  }

  /** Checks, then runs `body` on the call. On a failure nothing that it made is left. */
  private run(
    backend: Backend,
    request: AttentionRequest,
    body: (call: Call, scratch: Take<Indices | Scores>) => TensorInfo[],
  ): TensorInfo[] {
    const {stages} = this;
    stages.check(backend, request);
    let results: TensorInfo[] = [];
    try {
      results = this.withScratch(backend, (scratch) => body(stages.open(backend, request, scratch), scratch));
    } finally {
      // Where the device was lost, that is what failed.
      this.throwIfLost(backend, request, results);
    }
    return results;
  }

  private throwIfLost(backend: Backend, {op}: AttentionRequest, results: TensorInfo[]): void {
    try {
      this.stages.throwIfLost?.(backend, op);
    } catch (error) {
      results.forEach((tensor) => this.stages.freeTensor(backend, tensor));
      throw error;
    }
  }

  private withScratch<T>(
    backend: Backend,
    body: (scratch: Take<Indices | Scores>, keep: Take<Indices | Scores>) => T,
  ): T {
    return runWithScratch((handle: Indices | Scores) => this.stages.free(backend, handle), body);
  }
}

function requestOf(
  {op, result, inputs, attrs: {scale, causal, precision, softCap}}: KernelRun<unknown, FlashAttentionAttrs>,
  geometry: BlockGeometry,
  expectedTime: number,
): AttentionRequest {
  return {op, inputs, geometry, scale, causal, precision, result, expectedTime, ...(softCap && {softCap})};
}

/** The plan of exact attention: keys in their own order, every visible block selected, so all attention kept. */
function exactPlan(geometry: BlockGeometry, {causal, withMass}: PBSAttentionPlanAttrs): TensorInfo[] {
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  const rows = batch * heads * queryBlocks;
  const keyIndices = new Int32Array(batch * heads * keyLength).map((_, i) => i % keyLength);
  const blockMask = new Uint8Array(rows * keyBlocks);
  for (let row = 0; row < rows; ++row) {
    const start = row * keyBlocks;
    const queryBlock = row % queryBlocks;
    const first = firstVisibleBlock(geometry, queryBlock);
    blockMask.fill(1, start + first, start + visibleBlocks(geometry, causal, queryBlock));
  }
  const keptMass = new Float32Array(rows).fill(1);
  return [
    tensor(keyIndices, [batch, heads, keyLength], 'int32'),
    tensor(blockMask, [batch, heads, queryBlocks, keyBlocks], 'bool'),
    ...(withMass ? [tensor(keptMass, [batch, heads, queryBlocks])] : []),
  ];
}
