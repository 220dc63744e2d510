import './kernels/register.js';
import './ops/chained_ops.js';

export {flashAttention} from './ops/flash_attention.js';
export type {FlashAttentionOptions, PBSAttentionOptions} from './ops/options.js';
export {pbsAttention} from './ops/pbs_attention.js';
export {pbsAttentionDensity} from './ops/pbs_attention_density.js';
export type {PBSAttentionPlan} from './ops/pbs_attention_plan.js';
export {pbsAttentionPlan} from './ops/pbs_attention_plan.js';
