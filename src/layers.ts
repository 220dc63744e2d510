import './kernels/register.js';

export type {MultiHeadAttentionArgs} from './layers/multi_head_attention_layer.js';
export {MultiHeadAttention} from './layers/multi_head_attention_layer.js';
export type {PBSAttentionLayerArgs} from './layers/pbs_attention_layer.js';
export {PBSAttention} from './layers/pbs_attention_layer.js';
export type {LayerLeft, PBSAttentionInUse, UsePBSAttentionOptions} from './layers/use_pbs_attention.js';
export {usePBSAttention} from './layers/use_pbs_attention.js';
