import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {AttentionCall} from '../../attention/attention_call.js';
import type {BlockPlan} from '../../attention/stage_set.js';

/** A call with its tensors as tfjs holds them. */
export interface WebGPUCall extends AttentionCall<TensorInfo> {
  backend: WebGPUBackend;
  /** What slopes, sinks and key lengths say of each head, where there are slopes or sinks (`head_forms.ts`). */
  headForms?: TensorInfo;
}

/** What is known of a call without its tensors. */
export type WebGPUCallShape = Pick<WebGPUCall, 'op' | 'backend' | 'geometry' | 'causal' | 'precision'>;

/** One that asks for gradients. */
export type WebGPUGradientCall = WebGPUCall & Required<Pick<WebGPUCall, 'output' | 'dy'>>;

export type WebGPUPlan = BlockPlan<TensorInfo>;

/** The same as the gradients read it; or with query lists in place of block lists (`gradients/joined_plan.ts`). */
export interface JoinedPlan {
  joinedPlan: TensorInfo;
}
