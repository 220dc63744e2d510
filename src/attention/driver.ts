import type {
  DataType,
  KernelConfig,
  KernelFunc,
  NamedTensorInfoMap,
  TensorInfo,
  TypedArray,
} from '@tensorflow/tfjs-core';
import type {AttentionRequest, PlanRule} from './attention_call.js';
import {exactGeometry} from './attention_call.js';
import type {FlashAttentionAttrs, PBSAttentionAttrs, PBSAttentionPlanAttrs} from './attention_kernels.js';
import {
  FlashAttention,
  FlashAttentionGrad,
  PBSAttention,
  PBSAttentionGrad,
  PBSAttentionPlan,
} from './attention_kernels.js';
import {blockGeometry, isExact} from './block_geometry.js';
import {exactTime, runsExact, sparseTime} from './cost_model.js';
import {exactPlan} from './exact_plan.js';
import type {Take} from './scratch.js';
import {runWithScratch} from './scratch.js';
import type {BlockPlan, StageSet} from './stage_set.js';

type Inputs = AttentionRequest['inputs'];
type Result = AttentionRequest['result'];

/** What the driver itself asks of a backend of tfjs. */
interface TensorMaker {
  makeTensorInfo(shape: number[], dtype: DataType, values?: TypedArray): TensorInfo;
}

/** The kernels of a backend, made of its stages. */
export function attentionKernels<Backend extends TensorMaker, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
): KernelConfig[] {
  return new Driver(stages).kernels();
}

/**
 * Runs permute → score blocks → select blocks → attend. Unpermute is the identity, because queries stay in place and `attend`
 * writes each row where its query stands. The one place that decides what a call runs: exactly, by a plan that is given or by
 * one that it makes, with gradients or without.
 */
class Driver<Backend extends TensorMaker, Call, Indices, Scores> {
  constructor(private readonly stages: StageSet<Backend, Call, Indices, Scores>) {}

  kernels(): KernelConfig[] {
    return [
      this.kernel(FlashAttention, (backend, inputs, attrs) => {
        return this.attention(backend, this.exactRequest(backend, 'flashAttention', inputs, attrs, 'output'))[0];
      }),
      this.kernel(PBSAttention, (backend, inputs, attrs: PBSAttentionAttrs) => {
        return this.attention(backend, this.sparseRequest(backend, 'pbsAttention', inputs, attrs, 'output'))[0];
      }),
      this.kernel(PBSAttentionPlan, (backend, inputs, attrs: PBSAttentionPlanAttrs) =>
        this.plan(backend, inputs, attrs),
      ),
      this.kernel(FlashAttentionGrad, (backend, inputs, attrs) => {
        const op = 'gradient of flashAttention';
        return this.attention(backend, this.exactRequest(backend, op, inputs, attrs, 'gradients'));
      }),
      // In the form and over the blocks of the forward pass: the same inputs and attributes give the same plan again.
      this.kernel(PBSAttentionGrad, (backend, inputs, attrs: PBSAttentionAttrs) => {
        const op = 'gradient of pbsAttention';
        return this.attention(backend, this.sparseRequest(backend, op, inputs, attrs, 'gradients'));
      }),
    ];
  }

  private kernel<Attrs extends FlashAttentionAttrs>(
    kernelName: string,
    run: (backend: Backend, inputs: Inputs, attrs: Attrs) => TensorInfo | TensorInfo[],
  ): KernelConfig {
    const kernelFunc = ({inputs, backend, attrs}: {inputs: NamedTensorInfoMap; backend: unknown; attrs: unknown}) =>
      run(backend as Backend, inputs as unknown as Inputs, attrs as Attrs);
    return {kernelName, backendName: this.stages.backendName, kernelFunc: kernelFunc as KernelFunc};
  }

  private exactRequest(
    backend: Backend,
    op: string,
    inputs: Inputs,
    attrs: FlashAttentionAttrs,
    result: Result,
  ): AttentionRequest {
    const {scale, causal, precision} = attrs;
    const geometry = exactGeometry(inputs, attrs, this.stages.exactBlockSize);
    const expectedTime = exactTime(geometry, causal, this.stages.costs(backend, geometry, precision));
    return {op, inputs, geometry, scale, causal, precision, result, expectedTime};
  }

  /** Exact where that is asked for or, with `auto`, expected to be no slower. */
  private sparseRequest(
    backend: Backend,
    op: string,
    inputs: Inputs,
    attrs: PBSAttentionAttrs,
    result: Result,
  ): AttentionRequest {
    const {scale, causal, precision} = attrs;
    const geometry = blockGeometry(inputs.query, inputs.key, attrs, inputs.value);
    const costs = this.stages.costs(backend, geometry, precision);
    const isPlanned = inputs.keyIndices !== undefined;
    if (!isPlanned && runsExact(geometry, attrs, costs)) {
      return this.exactRequest(backend, op, inputs, attrs, result);
    }
    // How many blocks a plan keeps that is given, nobody knows here.
    const expectedTime = isPlanned ? exactTime(geometry, causal, costs) : sparseTime(geometry, attrs, costs);
    return {op, inputs, geometry, scale, causal, precision, result, expectedTime, ...(!isPlanned && {rule: attrs})};
  }

  /** The output, or the gradients by query, key and value. */
  private attention(backend: Backend, request: AttentionRequest): TensorInfo[] {
    const {rule, result, inputs} = request;
    return this.run(backend, request, (call, scratch) => {
      let plan: BlockPlan<Indices> | undefined;
      if (rule) {
        plan = this.planBlocks(backend, call, rule);
        [plan.keyIndices, plan.blockLists].forEach(scratch);
      } else if (inputs.keyIndices && inputs.blockMask) {
        plan = this.stages.loadPlan(call, {keyIndices: inputs.keyIndices, blockMask: inputs.blockMask}, scratch);
      }
      return result === 'gradients' ? this.stages.attendGradients(call, plan) : [this.stages.attend(call, plan)];
    });
  }

  private plan(backend: Backend, inputs: Inputs, attrs: PBSAttentionPlanAttrs): TensorInfo[] {
    const {scale, causal, precision, withMass} = attrs;
    const geometry = blockGeometry(inputs.query, inputs.key, attrs);
    const form = {op: 'pbsAttentionPlan', inputs, geometry, scale, causal, precision, expectedTime: 0};
    if (!isExact(geometry, attrs)) {
      return this.run(backend, {...form, result: 'plan', rule: attrs}, (call, scratch) =>
        this.stages.storePlan(call, this.planBlocks(backend, call, attrs, withMass), scratch),
      );
    }
    // An exact plan is written down, not computed.
    this.stages.check(backend, {...form, result: 'plan'});
    const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
    const {keyIndices, blockMask, keptMass} = exactPlan(geometry, causal);
    return [
      backend.makeTensorInfo([batch, heads, keyLength], 'int32', keyIndices),
      backend.makeTensorInfo([batch, heads, queryBlocks, keyBlocks], 'bool', blockMask),
      ...(withMass ? [backend.makeTensorInfo([batch, heads, queryBlocks], 'float32', keptMass)] : []),
    ];
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
    const results = this.withScratch(backend, (scratch) => body(stages.open(backend, request, scratch), scratch));
    try {
      stages.throwIfLost?.(backend, request.op);
    } catch (error) {
      results.forEach((tensor) => stages.freeTensor(backend, tensor));
      throw error;
    }
    return results;
  }

  private withScratch<T>(
    backend: Backend,
    body: (scratch: Take<Indices | Scores>, keep: Take<Indices | Scores>) => T,
  ): T {
    return runWithScratch((handle: Indices | Scores) => this.stages.free(backend, handle), body);
  }
}
