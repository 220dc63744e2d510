/** Both ends are accepted. */
export interface NumberRange {
  min: number;
  max: number;
}

/** Far beyond what models have, 64 to 256: the tables of the rotary embedding grow with it. */
export const MAX_HEAD_DIM = 1024;

/** Numbers past these are 0 or infinite in the float32 that the model computes in, or make all that it computes so. */
export const RMS_NORM_EPSILON: NumberRange = {min: 1e-30, max: 1};
export const ROPE_THETA: NumberRange = {min: 1, max: 1e12};
export const QUERY_SCALAR: NumberRange = {min: 1e-6, max: 1e6};
export const ROPE_FACTOR: NumberRange = {min: 1e-6, max: 1e6};

export function describeRange({min, max}: NumberRange): string {
  return `a positive number from ${min} to ${max}`;
}
