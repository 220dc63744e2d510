import {headVectors} from './program.js';

/*
 * The state of the online softmax of query rows, as one program hands it to another: a tensor of vec4, a row each, whose
 * first holds the largest score (log2), the sum of exp2(score − maximum), and two zeros; the others hold the values times
 * exp2(score − maximum), added up. A row that has seen nothing has the maximum `lowest` and zeros.
 */

/** Values of a row of states. */
export const stateSize = (valueDim: number) => 4 * (1 + headVectors(valueDim));

/** Where the maximum of a row starts: far below every score, and far above that of a masked one. */
export const lowest = '-1e38f';

/** Shader text that reads the state tensor `seen`. */
export const readSeen = (valueDim: number) => `

// Maximum and sum of a row, and a vec4 of its values.
fn seenAt(row : i32) -> vec2<f32> { return seen[row * ${1 + headVectors(valueDim)}].xy; }
fn seenValues(row : i32, vector : i32) -> vec4<f32> { return seen[row * ${1 + headVectors(valueDim)} + 1 + vector]; }`;
