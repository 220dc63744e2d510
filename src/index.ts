import './kernels/register';

export {flashAttention} from './ops/flash_attention';
export type {FlashAttentionOptions, PBSAttentionOptions} from './ops/options';
export {pbsAttention} from './ops/pbs_attention';
export {pbsAttentionDensity} from './ops/pbs_attention_density';
export type {PBSAttentionPlan} from './ops/pbs_attention_plan';
export {pbsAttentionPlan} from './ops/pbs_attention_plan';
