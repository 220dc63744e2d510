import {gradientKey} from './gradient_key.js';
import {gradientQuery} from './gradient_query.js';
import {gradientStatistics} from './gradient_statistics.js';
import type {Scoring} from '../attend/visible_scores.js';

/**
 * Gradients of the attend stage by query, key and value: gradient statistics → gradient query, gradient key, one file a
 * stage. `dy` is the gradient by `output`.
 */
export function attendGradients(
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  output: Float32Array,
  dy: Float32Array,
  scoring: Scoring,
): Float32Array[] {
  const statistics = gradientStatistics(query, key, output, dy, scoring);
  const queryGradient = gradientQuery(query, key, value, dy, statistics, scoring);
  const keyGradients = gradientKey(query, key, value, dy, statistics, scoring);
  return [queryGradient, keyGradients.key, keyGradients.value];
}
