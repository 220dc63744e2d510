import type {MatrixUnits} from '../runtime/device_features.js';
import {fragment} from '../runtime/device_features.js';
import type {ShaderExtension} from '../runtime/program_spec.js';

/** What the programs on matrix units enable. */
export const matrixExtensions: ShaderExtension[] = ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix'];

/** Types of fragments, columns before rows: of the two factors, and of a sum. */
export const fragmentTypes = ({rows, columns, depth}: MatrixUnits) => ({
  leftType: `subgroup_matrix_left<f16, ${depth}, ${rows}>`,
  rightType: `subgroup_matrix_right<f16, ${columns}, ${depth}>`,
  sumType: `subgroup_matrix_result<f32, ${columns}, ${rows}>`,
});

/** Values of a row, up to whole fragments. */
export const paddedHeadDim = (headDim: number) => Math.ceil(headDim / fragment) * fragment;
