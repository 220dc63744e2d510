import type {GraphNodeDef} from './graph_def.js';
import {dataInputs} from './graph_def.js';
import type {GraphView} from './graph_view.js';

/** A tensor of the graph, and how its axes go where the op wants them: `[...batch, length, headDim]`. */
export interface Operand {
  tensor: string;
  /** Left out where the axes are in order. */
  perm?: number[];
}

/** `scores[..., i, j] = query[..., i, :] · key[..., j, :]`. */
export interface ScoreProduct {
  query: Operand;
  key: Operand;
}

/** `output = weights · value`, with the output's axes moved from `[...batch, length, headDim]` by `outputPerm`. */
export interface ValueProduct {
  value: Operand;
  outputPerm?: number[];
}

/** Names of nodes may be of any length. */
const longestReason = 500;

/** Why a node cannot be replaced; the text goes into the report. */
export class NotRecognised extends Error {
  constructor(reason: string) {
    super(reason.length > longestReason ? `${reason.slice(0, longestReason)}…` : reason);
  }
}

const matMuls = ['BatchMatMul', 'BatchMatMulV2', 'MatMul'];

export function isProduct({op}: GraphNodeDef): boolean {
  return matMuls.includes(op) || op === 'Einsum';
}

function checkFactors({name, op, input}: GraphNodeDef): void {
  const factors = dataInputs(input).length;
  if (factors !== 2) {
    throw new NotRecognised(`${name} (${op}) has ${factors} inputs instead of 2`);
  }
}

/** Reads a product as that of queries and keys. */
export function scoreProduct(graph: GraphView, node: GraphNodeDef): ScoreProduct {
  checkFactors(node);
  const [a, b] = node.input;
  if (node.op === 'Einsum') {
    return scoreEinsum(node);
  }
  const {adjointA, adjointB} = adjoints(node);
  return {
    query: adjointA ? lastAxesSwapped(graph, a, 'queries') : {tensor: a},
    key: adjointB ? {tensor: b} : lastAxesSwapped(graph, b, 'keys'),
  };
}

/** Reads a product as that of attention weights, which the tensor named `weights` holds, and values. */
export function valueProduct(graph: GraphView, node: GraphNodeDef, weights: string): ValueProduct {
  checkFactors(node);
  const place = node.input.findIndex((tensor) => graph.source(tensor)?.name === weights);
  if (node.op === 'Einsum') {
    return valueEinsum(node, place);
  }
  const {adjointA, adjointB} = adjoints(node);
  if (place !== 0 || adjointA) {
    throw new NotRecognised(`in ${node.name} the softmax is not the first factor, row by row`);
  }
  return {value: adjointB ? lastAxesSwapped(graph, node.input[1], 'values') : {tensor: node.input[1]}};
}

function adjoints({name, op, attr}: GraphNodeDef): {adjointA: boolean; adjointB: boolean} {
  const [adjointA, adjointB] = (op === 'MatMul' ? ['transpose_a', 'transpose_b'] : ['adj_x', 'adj_y']).map((flag) => {
    const value: unknown = attr[flag]?.b ?? false;
    if (typeof value !== 'boolean') {
      throw new NotRecognised(`${flag} of ${name} (${op}) is neither true nor false`);
    }
    return value;
  });
  return {adjointA, adjointB};
}

/** A transposed factor before it was transposed, which takes a Transpose of the graph: the rank is not known otherwise. */
function lastAxesSwapped(graph: GraphView, tensor: string, what: string): Operand {
  const node = graph.source(tensor);
  const perm = node?.op === 'Transpose' ? graph.vector(node.input[1]) : undefined;
  const isOrder = perm !== undefined && perm.length >= 2 && perm.every((_, axis) => perm.includes(axis));
  if (!node || !isOrder) {
    throw new NotRecognised(`its ${what} are not transposed by the product nor by a Transpose of constant order`);
  }
  const axes = [...perm];
  const last = axes.length - 1;
  [axes[last], axes[last - 1]] = [axes[last - 1], axes[last]];
  return operand(node.input[0], axes);
}

function operand(tensor: string, perm: number[]): Operand {
  return perm.every((axis, i) => axis === i) ? {tensor} : {tensor, perm};
}

/** The letters of an einsum of two factors, each letter once a factor. */
function letters(node: GraphNodeDef): {factors: string[][]; result: string[]} {
  const equation = decoded(node.attr['equation']?.s).replace(/\s/g, '');
  const parts = /^([a-z]+),([a-z]+)->([a-z]+)$/.exec(equation)?.slice(1) ?? [];
  const isSimple = parts.length === 3 && parts.every((part) => new Set(part).size === part.length);
  if (!isSimple) {
    throw new NotRecognised(`the einsum '${equation}' is not one of two factors with single letters`);
  }
  const [a, b, result] = parts.map((part) => [...part]);
  return {factors: [a, b], result};
}

/** A text in base64, as GraphDef in JSON has it. */
function decoded(text: unknown): string {
  try {
    return atob(String(text ?? ''));
  } catch {
    return String(text);
  }
}

function scoreEinsum(node: GraphNodeDef): ScoreProduct {
  const {factors, result} = letters(node);
  const batch = result.slice(0, -2);
  const [i, j] = result.slice(-2);
  const queryPlace = factors.findIndex((letters) => letters.includes(i));
  const [query, key] = queryPlace === 0 ? factors : [...factors].reverse();
  const summed = query.filter((letter) => key.includes(letter) && !result.includes(letter));
  const wantedQuery = [...batch, i, ...summed];
  const wantedKey = [...batch, j, ...summed];
  if (summed.length !== 1 || !sameLetters(query, wantedQuery) || !sameLetters(key, wantedKey)) {
    throw new NotRecognised(`the einsum of ${node.name} is not one of queries and keys`);
  }
  return {
    query: operand(node.input[queryPlace], order(wantedQuery, query)),
    key: operand(node.input[1 - queryPlace], order(wantedKey, key)),
  };
}

function valueEinsum(node: GraphNodeDef, weightsPlace: number): ValueProduct {
  const {factors, result} = letters(node);
  const weights = factors[weightsPlace];
  const value = factors[1 - weightsPlace];
  const batch = weights.slice(0, -2);
  const [i, j] = weights.slice(-2);
  const own = value.filter((letter) => !weights.includes(letter));
  const wanted = [...batch, j, ...own];
  const made = [...batch, i, ...own];
  if (own.length !== 1 || !sameLetters(value, wanted) || !sameLetters(result, made)) {
    throw new NotRecognised(`the einsum of ${node.name} is not one of weights and values`);
  }
  const {perm} = operand('', order(result, made));
  return {value: operand(node.input[1 - weightsPlace], order(wanted, value)), outputPerm: perm};
}

function sameLetters(a: string[], b: string[]): boolean {
  return a.length === b.length && a.every((letter) => b.includes(letter));
}

/** The axes of `from` in the order of `to`. */
function order(to: string[], from: string[]): number[] {
  return to.map((letter) => from.indexOf(letter));
}
