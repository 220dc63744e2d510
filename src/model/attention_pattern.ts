import type {AxisLength} from './mask/axis_length.js';
import type {GraphNodeDef} from './graph_def.js';
import {isPassThrough, nodeName} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import type {ScoreProduct, ValueProduct} from './products.js';
import {isProduct, NotRecognised, swapsLastAxes, valueProduct} from './products.js';
import {isScalar} from './scalar.js';
import type {AddedMask, QueryFactor} from './score_reader.js';
import {checkAcyclic, ScoreReader} from './score_reader.js';

/** Nodes beside those between the two products that only they need. */
const mostBeside = 1000;

/** A number, the name of a tensor that holds it, or an axis of the scores. */
export type MaskLength = number | {tensor: string} | {axis: number};

/** Attention in a graph: matMul, scale, mask, softmax and matMul. */
export interface AttentionPattern extends ScoreProduct, ValueProduct {
  causal: boolean;
  /** Product of the constant scales. */
  scale: number;
  queryFactors: QueryFactor[];
  /** Of its masks: where the lengths of the scores are others, they are broadcast, but for lengths of 1 without a causal mask. */
  maskSize?: [queries: MaskLength, keys: MaskLength];
  /** Whether the causal mask lets the last query see every key, and not the first query the first key alone. */
  isFromEnd: boolean;
  /** Masks whose values the graph's inputs decide, or that are of another form than causal. */
  masks: AddedMask[];
  /** The nodes between the inputs and the output, which nothing else reads. */
  inner: string[];
  /** The node that gives the output. */
  last: GraphNodeDef;
}

/**
 * Recognises the attention around a softmax.
 *
 * @param hiddenBelow what a causal mask must lower later keys by, at least.
 * @throws NotRecognised with the reason, unless every node of it is understood and read by nothing else.
 */
export function attentionPattern(graph: GraphView, softmax: GraphNodeDef, hiddenBelow: number): AttentionPattern {
  if (graph.brokenTranspose) {
    throw new NotRecognised(`${graph.brokenTranspose.name} (Transpose) of the graph is by no order of all axes`);
  }
  // Downwards first, because most softmaxes that are not attention's end here.
  const {last, between, weights, isTransposed} = productOf(graph, softmax);
  const value = valueProduct(graph, last, weights, isTransposed);
  const scores = new ScoreReader(graph, hiddenBelow);
  const product = scores.read(softmax.input[0]);
  const inner = [...scores.inner, softmax.name, ...between];
  const removed = checkInner(graph, inner, last);
  for (const {tensor} of [product.query, product.key, value.value]) {
    checkOperand(graph, tensor);
  }
  const {causal, scale, queryFactors, masks} = scores;
  const stays = [product.query, product.key, value.value, ...queryFactors, ...masks];
  if (stays.some(({tensor}) => removed.has(nodeName(tensor)))) {
    throw new NotRecognised('its queries, keys, values, scale or mask are made from its scores');
  }
  const size = scores.maskSize();
  const lengthOf = (length: AxisLength) =>
    maskLength(graph, length, scores.isTransposed ? new Set<string>() : new Set(inner), removed);
  const maskSize = size && ([lengthOf(size[0]), lengthOf(size[1])] as AttentionPattern['maskSize']);
  const isFromEnd = size?.[2] === 'end';
  return {
    ...product,
    ...value,
    causal,
    scale,
    queryFactors,
    masks,
    isFromEnd,
    ...(maskSize && {maskSize}),
    inner,
    last,
  };
}

/** Throws on queries, keys or values with which tfjs computes otherwise in one product than in another. */
function checkOperand(graph: GraphView, tensor: string): void {
  const isOfNoFloats = graph.isOfNoFloats(tensor);
  if (isOfNoFloats || isScalar(graph, tensor)) {
    throw new NotRecognised(`${tensor}, which is multiplied, is ${isOfNoFloats ? 'not of floats' : 'a single number'}`);
  }
}

/** How the new node learns a length of the mask. */
function maskLength(
  graph: GraphView,
  length: AxisLength,
  inner: ReadonlySet<string>,
  removed: ReadonlySet<string>,
): MaskLength {
  if (typeof length === 'number') {
    return length;
  }
  if (!removed.has(nodeName(length))) {
    return {tensor: length};
  }
  const slice = graph.source(length);
  const shape = slice?.op === 'StridedSlice' ? graph.source(slice.input[0]) : undefined;
  const axis = graph.scalar(slice?.input[1]);
  const isOfScores = shape?.op === 'Shape' && inner.has(nodeName(shape.input[0] ?? ''));
  if (!isOfScores || axis === undefined || Number(slice?.attr['shrink_axis_mask']?.i) !== 1) {
    throw new NotRecognised(`its mask is as long as ${length} says, which is made from its scores`);
  }
  return {axis};
}

/** The product that reads the softmax, the node through which it does, and whether rows and columns are swapped between the two. */
function productOf(
  graph: GraphView,
  softmax: GraphNodeDef,
): {last: GraphNodeDef; between: string[]; weights: string; isTransposed: boolean} {
  const between: string[] = [];
  let isTransposed = false;
  checkAcyclic(graph, softmax);
  for (let at = softmax; ;) {
    const readers = graph.readersOf(at.name);
    if (graph.outputs.has(at.name)) {
      throw new NotRecognised(`${at.name} is an output of the graph`);
    }
    if (readers.length !== 1) {
      throw new NotRecognised(readBy(at.name, readers));
    }
    const weights = at.name;
    [at] = readers;
    checkAcyclic(graph, at);
    if (isProduct(at)) {
      return {last: at, between, weights, isTransposed};
    }
    const isSwap = swapsLastAxes(graph, at);
    if (!isPassThrough(at) && !isSwap) {
      throw new NotRecognised(`its result goes into ${at.name} (${at.op}), not into a product with values`);
    }
    isTransposed = isTransposed !== isSwap;
    between.push(at.name);
  }
}

/**
 * Throws unless nodes can go: each is read by another of them, by the last, or by nodes that only those need, such as a
 * mask made from the shape of the scores. Returns the names of all that are made from them.
 */
function checkInner(graph: GraphView, inner: string[], last: GraphNodeDef): Set<string> {
  const names = new Set(inner);
  const beside = new Set<string>();
  const ordered = [...inner, last.name].find((name) => graph.ordered.has(name));
  if (ordered) {
    throw new NotRecognised(`${ordered} has control inputs or controls other nodes`);
  }
  for (const name of inner) {
    if (graph.outputs.has(name)) {
      throw new NotRecognised(`${name} is an output of the graph`);
    }
    if (!leadsOnlyInto(graph, name, new Set([...names, last.name]), beside)) {
      throw new NotRecognised(readBy(name, graph.readersOf(name)));
    }
  }
  return new Set([...names, ...beside]);
}

/**
 * Whether all that reads a node ends in some nodes, and nothing of it is an output. Puts the nodes between them to `beside`, of which no
 * more are followed than attention has.
 */
function leadsOnlyInto(graph: GraphView, from: string, ends: ReadonlySet<string>, beside: Set<string>): boolean {
  const waiting = [from];
  let steps = 0;
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const readers = graph.readersOf(name);
    steps += readers.length;
    if (readers.length === 0 || graph.outputs.has(name) || steps > mostBeside) {
      return false;
    }
    for (const reader of readers) {
      if (!ends.has(reader.name) && !beside.has(reader.name)) {
        beside.add(reader.name);
        waiting.push(reader.name);
      }
    }
  }
  return true;
}

function readBy(name: string, readers: GraphNodeDef[]): string {
  const named = readers.slice(0, 4).map((node) => node.name);
  const others = readers.length > named.length ? ` and ${readers.length - named.length} others` : '';
  return `${name} is read by ${named.join(', ') || 'nothing'}${others}, not by attention alone`;
}
