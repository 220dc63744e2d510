/**
 * Importing this entry registers the kernels for the backends `cpu`, `webgl` and `webgpu`, loading none of them (on others, as wasm, the functions
 * run composed of tfjs's ops), and adds
 * two methods to tensors: `query.pbsAttention(key, value, options)` and `query.flashAttention(key, value, options)`.
 *
 * By script tag (`dist/tf-pbs-attention.min.js`, after TensorFlow.js) the functions of this entry and of `/webgpu` are
 * members of the global `tf`: `tf.pbsAttention(query, key, value, options)`.
 *
 * @module tfjs-pbs-attention
 */
import './kernels/register.js';
import './ops/chained_ops.js';

export type {ExactReason} from './attention/cost_model.js';
export {attentionWithLogSumExp, mergeAttention} from './ops/attention_with_log_sum_exp.js';
export {flashAttention} from './ops/flash_attention.js';
export {extendPBSAttentionPlan} from './ops/extend_pbs_attention_plan.js';
export type {
  AttentionOp,
  AttentionOptions,
  FlashAttentionOptions,
  PBSAttentionOptions,
  PBSAttentionSettings,
  TensorInput,
} from './ops/options.js';
export {paperOptions} from './ops/options.js';
export {packFloat16} from './ops/pack_float16.js';
export {pbsAttention} from './ops/pbs_attention.js';
export {pbsAttentionDensity} from './ops/pbs_attention_density.js';
export type {AttentionPart, PBSAttentionPlan, PBSAttentionPlanSizes, PBSAttentionReport} from './ops/results.js';
export {pbsAttentionPlan} from './ops/pbs_attention_plan.js';
export {releaseAttentionMemory} from './ops/release_attention_memory.js';
export type {DeviceClass, CalibratedConstants, CalibratedPrecision} from './attention/device_costs.js';
export type {AttentionCalibration, CalibratedBackend} from './tuning/attention_calibration.js';
export {useAttentionCalibration} from './tuning/attention_calibration.js';
export type {CalibrationOptions} from './tuning/calibrate_attention.js';
export {calibrateAttention} from './tuning/calibrate_attention.js';
export type {AttentionSample, AttentionSampleCollector} from './tuning/attention_samples.js';
export {collectAttentionSamples} from './tuning/attention_samples.js';
export type {AttentionMeasures} from './tuning/sample_measurer.js';
export type {TunedAttention, TuningCandidate, TuningOptions, TuningTarget} from './tuning/tune_pbs_attention.js';
export type {AttentionArithmetic} from './kernels/backend_arithmetic.js';
export {attentionPrecision} from './tuning/attention_precision.js';
export type {AttentionShape} from './tuning/attention_shape.js';
export {warmUpAttention} from './tuning/warm_up_attention.js';
export {tunePBSAttention} from './tuning/tune_pbs_attention.js';
