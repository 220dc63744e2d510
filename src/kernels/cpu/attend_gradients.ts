import {attendRemainder} from './attend_remainder.js';
import {gradientKey} from './gradient_key.js';
import {gradientQuery} from './gradient_query.js';
import {addRemainderGradients} from './gradient_remainder.js';
import {gradientStatistics} from './gradient_statistics.js';
import type {Scoring} from './visible_scores.js';

/**
 * Gradients of the attend stage by query, key and value: gradient statistics → gradient query, gradient key, one file a
 * stage, and with `remainder` the gradients of the blocks that are skipped. `dy` is the gradient by `output`.
 */
export function attendGradients(
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  output: Float32Array,
  dy: Float32Array,
  scoring: Scoring,
  remainder = false,
): Float32Array[] {
  const {geometry, scale, causal, plan, keyLengths} = scoring;
  const remaining = remainder ? plan : undefined;
  const seen = remaining && attendRemainder(query, key, value, geometry, scale, causal, remaining, keyLengths);
  const statistics = gradientStatistics(query, key, output, dy, scoring, seen);
  const queryGradient = gradientQuery(query, key, value, dy, statistics, scoring);
  const keyGradients = gradientKey(query, key, value, dy, statistics, scoring);
  const gradients = {query: queryGradient, ...keyGradients};
  if (remaining) {
    addRemainderGradients(gradients, query, key, value, dy, statistics, scoring, remaining);
  }
  return [gradients.query, gradients.key, gradients.value];
}
