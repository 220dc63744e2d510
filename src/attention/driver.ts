import type {KernelConfig, KernelFunc, NamedTensorInfoMap, TensorInfo} from '@tensorflow/tfjs-core';
import type {AttentionRequest, PlanRule} from './attention_call.js';
import {exactGeometry, sparseGeometry} from './attention_call.js';
import type {FlashAttentionAttrs, PBSAttentionAttrs, PBSAttentionPlanAttrs} from './attention_kernels.js';
import {
  FlashAttention,
  FlashAttentionGrad,
  PBSAttention,
  PBSAttentionGrad,
  PBSAttentionPlan,
} from './attention_kernels.js';
import {isExact} from './block_geometry.js';
import {exactTime, launches, runsExact, sparseTime} from './cost_model.js';
import {exactPlan} from './exact_plan.js';
import type {Take} from './scratch.js';
import {runWithScratch} from './scratch.js';
import type {BlockPlan, StageSet} from './stage_set.js';

type Inputs = AttentionRequest['inputs'];
type Result = AttentionRequest['result'];
/** A backend of tfjs, as the kernels of every backend are handed it. */
interface TensorMaker {
  makeTensorInfo(shape: number[], dtype: 'int32' | 'bool' | 'float32', values: ArrayLike<number>): TensorInfo;
}

/**
 * The kernels of a backend, made of its stages: permute → score blocks → select blocks → attend. Unpermute is the identity,
 * because queries stay in place and `attend` writes each row where its query stands. The one place that decides what a call
 * runs: exactly, by a plan that is given or by one that it makes, with gradients or without.
 */
export function attentionKernels<Backend extends object, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
): KernelConfig[] {
  const kernel = <Attrs extends FlashAttentionAttrs>(
    kernelName: string,
    run: (backend: Backend, inputs: Inputs, attrs: Attrs) => TensorInfo | TensorInfo[],
  ): KernelConfig => ({
    kernelName,
    backendName: stages.backendName,
    kernelFunc: (({inputs, backend, attrs}: {inputs: NamedTensorInfoMap; backend: unknown; attrs: unknown}) =>
      run(backend as Backend, inputs as unknown as Inputs, attrs as Attrs)) as KernelFunc,
  });
  return [
    kernel(FlashAttention, (backend, inputs, attrs) => {
      const request = exactRequest(stages, backend, 'flashAttention', inputs, attrs, 'output');
      return attention(stages, backend, request)[0];
    }),
    kernel(PBSAttention, (backend, inputs, attrs: PBSAttentionAttrs) => {
      const request = sparseRequest(stages, backend, 'pbsAttention', inputs, attrs, 'output');
      return attention(stages, backend, request)[0];
    }),
    kernel(PBSAttentionPlan, (backend, inputs, attrs: PBSAttentionPlanAttrs) =>
      attentionPlan(stages, backend, inputs, attrs),
    ),
    kernel(FlashAttentionGrad, (backend, inputs, attrs) =>
      attention(
        stages,
        backend,
        exactRequest(stages, backend, 'gradient of flashAttention', inputs, attrs, 'gradients'),
      ),
    ),
    // In the form and over the blocks of the forward pass: the same inputs and attributes give the same plan again.
    kernel(PBSAttentionGrad, (backend, inputs, attrs: PBSAttentionAttrs) =>
      attention(
        stages,
        backend,
        sparseRequest(stages, backend, 'gradient of pbsAttention', inputs, attrs, 'gradients'),
      ),
    ),
  ];
}

function exactRequest<Backend, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
  backend: Backend,
  op: string,
  inputs: Inputs,
  attrs: FlashAttentionAttrs,
  result: Result,
): AttentionRequest {
  const {scale, causal, precision} = attrs;
  const geometry = exactGeometry(inputs, attrs, stages.exactBlockSize);
  const time = exactTime(geometry, causal, stages.costs(backend, geometry, precision));
  const parts = launches(time, causal, result === 'gradients');
  return {op, inputs, geometry, scale, causal, precision, result, parts};
}

/** Exact where that is asked for or, with `auto`, expected to be no slower. */
function sparseRequest<Backend, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
  backend: Backend,
  op: string,
  inputs: Inputs,
  attrs: PBSAttentionAttrs,
  result: Result,
): AttentionRequest {
  const geometry = sparseGeometry(inputs, attrs);
  const {scale, causal, precision} = attrs;
  const costs = stages.costs(backend, geometry, precision);
  if (!inputs.keyIndices && runsExact(geometry, attrs, costs)) {
    return exactRequest(stages, backend, op, inputs, attrs, result);
  }
  // How many blocks a plan keeps that is given, nobody knows here.
  const time = inputs.keyIndices ? exactTime(geometry, causal, costs) : sparseTime(geometry, attrs, costs);
  const parts = launches(time, causal, result === 'gradients');
  return {
    ...{op, inputs, geometry, scale, causal, precision, result, parts},
    ...(!inputs.keyIndices && {rule: attrs}),
  };
}

/** The output, or the gradients by query, key and value. */
function attention<Backend, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
  backend: Backend,
  request: AttentionRequest,
): TensorInfo[] {
  const {rule, result, inputs} = request;
  return run(stages, backend, request, (call, scratch) => {
    let plan: BlockPlan<Indices> | undefined;
    if (rule) {
      plan = planBlocks(stages, backend, call, rule);
      [plan.keyIndices, plan.blockLists].forEach(scratch);
    } else if (inputs.keyIndices && inputs.blockMask) {
      plan = stages.loadPlan(call, {keyIndices: inputs.keyIndices, blockMask: inputs.blockMask}, scratch);
    }
    return result === 'gradients' ? stages.attendGradients(call, plan) : [stages.attend(call, plan)];
  });
}

function attentionPlan<Backend extends object, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
  backend: Backend,
  inputs: Inputs,
  attrs: PBSAttentionPlanAttrs,
): TensorInfo[] {
  const geometry = sparseGeometry(inputs, attrs);
  const {scale, causal, precision, withMass} = attrs;
  const exact = isExact(geometry, attrs);
  const request: AttentionRequest = {
    ...{op: 'pbsAttentionPlan', inputs, geometry, scale, causal, precision, result: 'plan', parts: 1},
    // An exact plan is written down, not computed.
    ...(!exact && {rule: attrs}),
  };
  if (exact) {
    stages.check(backend, request);
    const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
    const {keyIndices, blockMask, keptMass} = exactPlan(geometry, causal);
    const maker = backend as unknown as TensorMaker;
    return [
      maker.makeTensorInfo([batch, heads, keyLength], 'int32', keyIndices),
      maker.makeTensorInfo([batch, heads, queryBlocks, keyBlocks], 'bool', blockMask),
      ...(withMass ? [maker.makeTensorInfo([batch, heads, queryBlocks], 'float32', keptMass)] : []),
    ];
  }
  return run(stages, backend, request, (call, scratch) =>
    stages.storePlan(call, planBlocks(stages, backend, call, attrs, withMass), scratch),
  );
}

/** The first three stages, and on request what they kept. The caller frees the plan. */
export function planBlocks<Backend, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
  backend: Backend,
  call: Call,
  rule: PlanRule,
  withMass = false,
): BlockPlan<Indices> & {keptMass?: Scores} {
  return withScratch(stages, backend, (scratch, keep) => {
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
function run<Backend, Call, Indices, Scores>(
  stages: StageSet<Backend, Call, Indices, Scores>,
  backend: Backend,
  request: AttentionRequest,
  body: (call: Call, scratch: Take<Indices | Scores>) => TensorInfo[],
): TensorInfo[] {
  stages.check(backend, request);
  const results = withScratch(stages, backend, (scratch) => body(stages.open(backend, request, scratch), scratch));
  try {
    stages.throwIfLost?.(backend, request.op);
  } catch (error) {
    results.forEach((tensor) => stages.freeTensor(backend, tensor));
    throw error;
  }
  return results;
}

const withScratch = <Backend, Call, Indices, Scores, T>(
  stages: StageSet<Backend, Call, Indices, Scores>,
  backend: Backend,
  body: (scratch: Take<Indices | Scores>, keep: Take<Indices | Scores>) => T,
): T => runWithScratch((handle: Indices | Scores) => stages.free(backend, handle), body);
