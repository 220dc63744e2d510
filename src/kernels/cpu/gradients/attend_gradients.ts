import type {CPUGradientCall, CPUPlan} from '../cpu_call.js';
import {gradientKey} from './gradient_key.js';
import {gradientQuery} from './gradient_query.js';
import {gradientStatistics} from './gradient_statistics.js';

/**
 * Gradients of the attend stage by query, key and value: gradient statistics → gradient query, gradient key, one file a
 * stage. `dy` is the gradient by `output`.
 */
export function attendGradients(call: CPUGradientCall, plan?: CPUPlan): Float32Array[] {
  const statistics = gradientStatistics(call, plan);
  const queryGradient = gradientQuery(call, statistics, plan);
  const keyGradients = gradientKey(call, statistics, plan);
  return [queryGradient, keyGradients.key, keyGradients.value];
}
