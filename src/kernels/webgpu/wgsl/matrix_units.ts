import {fragment} from '../runtime/device_features.js';
import type {ShaderExtension} from '../runtime/program_spec.js';

/** What the programs on matrix units enable. */
export const matrixExtensions: ShaderExtension[] = ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix'];

/** Types of fragments: of the two factors, and of a sum. */
export const leftType = `subgroup_matrix_left<f16, ${fragment}, ${fragment}>`;
export const rightType = `subgroup_matrix_right<f16, ${fragment}, ${fragment}>`;
export const sumType = `subgroup_matrix_result<f32, ${fragment}, ${fragment}>`;

/** Values of a row, up to whole fragments. */
export const paddedHeadDim = (headDim: number) => Math.ceil(headDim / fragment) * fragment;
