import './kernels/register.js';

export {registerPBSAttentionOp} from './model/pbs_attention_node.js';
export type {
  AttentionLeft,
  AttentionReplaced,
  RewriteAttentionOptions,
  RewrittenModel,
} from './model/rewrite_attention.js';
export {rewriteAttention} from './model/rewrite_attention.js';
