import type {GraphNodeDef} from './graph_def.js';
import {dataInputs, nodeName} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import {NodeValues} from './node_values.js';

/** A tensor of the graph, and how its axes go where the op wants them: `[...batch, length, headDim]`. */
export interface Operand {
  tensor: string;
  /** Left out where the axes are in order. */
  perm?: number[];
  /** Whether the node is to swap the last two axes, which are `[..., headDim, length]`; a `perm` needs a rank that is known. */
  isTransposed?: boolean;
}

/** `scores[..., i, j] = query[..., i, :] · key[..., j, :]`. */
export interface ScoreProduct {
  query: Operand;
  key: Operand;
}

/**
 * `output = weights · value`, with the output's axes moved from `[...batch, length, headDim]` by `outputPerm`, or its last two swapped where
 * the graph multiplies `valueᵀ · weightsᵀ`.
 */
export interface ValueProduct {
  value: Operand;
  outputPerm?: number[];
  isOutputTransposed?: boolean;
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

/** Inputs through which scores may come, of ops between their product and the softmax. */
const scoreInputs: Record<string, number[]> = {
  Mul: [0, 1],
  RealDiv: [0],
  Add: [0, 1],
  AddV2: [0, 1],
  Sub: [0],
  Select: [1, 2],
  SelectV2: [1, 2],
  Transpose: [0],
};

const madeOfProducts = new WeakMap<GraphView, NodeValues<boolean>>();

/** Whether a tensor is a product, scaled or masked or not. */
export function isMadeOfProduct(graph: GraphView, tensor: string): boolean {
  let made = madeOfProducts.get(graph);
  if (!made) {
    const inputsOf = ({op, input}: GraphNodeDef) =>
      Object.hasOwn(scoreInputs, op) ? scoreInputs[op].flatMap((i) => dataInputs(input)[i] ?? []) : [];
    made = new NodeValues<boolean>(
      graph,
      inputsOf,
      (node, isMade) => isProduct(node) || inputsOf(node).some((input) => isMade(input) === true),
    );
    madeOfProducts.set(graph, made);
  }
  return made.of(tensor) ?? false;
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
    query: adjointA ? lastAxesSwapped(graph, a) : {tensor: a},
    key: adjointB ? {tensor: b} : lastAxesSwapped(graph, b),
  };
}

/**
 * Reads a product as that of attention weights, which the tensor named `weights` holds, and values.
 *
 * @param isTransposed whether a Transpose has swapped rows and columns of the weights before.
 */
export function valueProduct(
  graph: GraphView,
  node: GraphNodeDef,
  weights: string,
  isTransposed: boolean,
): ValueProduct {
  checkFactors(node);
  const place = node.input.findIndex((tensor) => nodeName(tensor) === weights);
  if (node.op === 'Einsum') {
    return valueEinsum(node, place, isTransposed);
  }
  const adjoint = adjoints(node);
  const [ofWeights, ofValue] =
    place === 0 ? [adjoint.adjointA, adjoint.adjointB] : [adjoint.adjointB, adjoint.adjointA];
  // Weights that come second must come as columns: valueᵀ · weightsᵀ.
  const areColumns = ofWeights !== isTransposed;
  if (areColumns !== (place === 1)) {
    throw new NotRecognised(`in ${node.name} the softmax runs over what its product with values does not sum over`);
  }
  const tensor = node.input[1 - place];
  const isOutputTransposed = place === 1;
  return {value: ofValue === isOutputTransposed ? {tensor} : lastAxesSwapped(graph, tensor), isOutputTransposed};
}

/** Whether a node swaps the last two axes and no others. */
export function swapsLastAxes(graph: GraphView, node: GraphNodeDef): boolean {
  const perm = node.op === 'Transpose' ? graph.vector(node.input[1]) : undefined;
  const rank = perm?.length ?? 0;
  return rank >= 2 && perm!.every((axis, i) => axis === (i < rank - 2 ? i : 2 * rank - 3 - i));
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

/** A factor with its last two axes swapped: what a Transpose of the graph was made from, or else the node is to do it. */
function lastAxesSwapped(graph: GraphView, tensor: string): Operand {
  const node = graph.source(tensor);
  const perm = node?.op === 'Transpose' ? graph.vector(node.input[1]) : undefined;
  if (!node || perm === undefined || perm.length < 2) {
    return {tensor, isTransposed: true};
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
  const parts = /^([a-z]+),([a-z]+)->([a-z]+)$/i.exec(equation)?.slice(1) ?? [];
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

function valueEinsum(node: GraphNodeDef, weightsPlace: number, isTransposed: boolean): ValueProduct {
  const {factors, result} = letters(node);
  const weights = factors[weightsPlace];
  const value = factors[1 - weightsPlace];
  const batch = weights.slice(0, -2);
  const [i, j] = isTransposed ? weights.slice(-2).reverse() : weights.slice(-2);
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
