import type {GraphNodeDef, GraphView} from './graph_def.js';
import {isPassThrough} from './graph_def.js';
import {isUniform, maskForm} from './mask_form.js';
import type {ScoreProduct, ValueProduct} from './products.js';
import {isProduct, NotRecognised, scoreProduct, valueProduct} from './products.js';

/**
 * Hidden scores must lie at least this far below the others, so that their weights are 0 in float32. Transformers mask
 * with -1e4 (in float16), -1e9 or the lowest number.
 */
const hiddenBelow = -1e4;

/** A scalar that is no constant, such as the root of the head dim from a Shape; it scales queries as well as scores. */
interface QueryFactor {
  op: 'Mul' | 'RealDiv';
  tensor: string;
}

/** Attention in a graph: matMul, scale, mask, softmax and matMul. */
export interface AttentionPattern extends ScoreProduct, ValueProduct {
  causal: boolean;
  /** Product of the constant scales. */
  scale: number;
  queryFactors: QueryFactor[];
  /** The nodes between the inputs and the output, which nothing else reads. */
  inner: string[];
  /** The node that gives the output. */
  last: GraphNodeDef;
}

/**
 * Recognises the attention around a softmax.
 *
 * @throws NotRecognised with the reason, unless every node of it is understood and read by nothing else.
 */
export function attentionPattern(graph: GraphView, softmax: GraphNodeDef): AttentionPattern {
  // Downwards first, because most softmaxes that are not attention's end here.
  const {last, between} = productOf(graph, softmax);
  const value = valueProduct(graph, last, softmax.name);
  const scores = new ScoreReader(graph);
  const product = scores.read(softmax.input[0]);
  const inner = [...scores.inner, softmax.name, ...between];
  checkInner(graph, inner, last);
  const stays = [product.query, product.key, value.value, ...scores.queryFactors];
  if (stays.some(({tensor}) => graph.isMadeBy(tensor, ({name}) => inner.includes(name)))) {
    throw new NotRecognised('its queries, keys, values or scale are made from its scores');
  }
  const {causal, scale, queryFactors} = scores;
  return {...product, ...value, causal, scale, queryFactors, inner, last};
}

/** The product that reads the softmax. */
function productOf(graph: GraphView, softmax: GraphNodeDef): {last: GraphNodeDef; between: string[]} {
  const between: string[] = [];
  for (let at = softmax; ;) {
    const readers = graph.readersOf(at.name);
    if (graph.outputs.has(at.name)) {
      throw new NotRecognised(`${at.name} is an output of the graph`);
    }
    if (readers.length !== 1) {
      throw new NotRecognised(readBy(at.name, readers));
    }
    [at] = readers;
    if (isProduct(at)) {
      return {last: at, between};
    }
    if (!isPassThrough(at)) {
      throw new NotRecognised(`its result goes into ${at.name} (${at.op}), not into a product with values`);
    }
    between.push(at.name);
  }
}

/**
 * Throws unless nodes can go: each is read by another of them, by the last, or by nodes that only those need, such as a
 * mask made from the shape of the scores.
 */
function checkInner(graph: GraphView, inner: string[], last: GraphNodeDef): void {
  const names = new Set(inner);
  const ordered = [...inner, last.name].find((name) => graph.ordered.has(name));
  if (ordered) {
    throw new NotRecognised(`${ordered} has control inputs or controls other nodes`);
  }
  for (const name of inner) {
    if (graph.outputs.has(name)) {
      throw new NotRecognised(`${name} is an output of the graph`);
    }
    const readers = graph.readersOf(name);
    if (!readers.every((node) => node === last || graph.leadsOnlyInto(node.name, names))) {
      throw new NotRecognised(readBy(name, readers));
    }
  }
}

function readBy(name: string, readers: GraphNodeDef[]): string {
  return `${name} is read by ${readers.map((node) => node.name).join(', ') || 'nothing'}, not by attention alone`;
}

/** Walks from the softmax up to the product of queries and keys, through scales and masks. */
class ScoreReader {
  causal = false;
  scale = 1;
  readonly queryFactors: QueryFactor[] = [];
  readonly inner: string[] = [];

  constructor(private readonly graph: GraphView) {}

  read(tensor: string): ScoreProduct {
    for (let at = tensor; ;) {
      const node = this.graph.node(at);
      if (!node) {
        throw new NotRecognised(`its scores come from ${at}, which is not the first output of a node`);
      }
      this.inner.push(node.name);
      if (isProduct(node)) {
        return scoreProduct(this.graph, node);
      }
      at = isPassThrough(node) ? node.input[0] : this.step(node);
    }
  }

  /** Takes in a scale or a mask. Returns the tensor that it is applied to. */
  private step(node: GraphNodeDef): string {
    const [a, b] = node.input;
    switch (node.op) {
      case 'Mul':
        return this.factor(a, b, 'Mul') ?? this.factor(b, a, 'Mul') ?? this.unknown(node);
      case 'RealDiv':
        return this.factor(a, b, 'RealDiv') ?? this.unknown(node);
      case 'Add':
      case 'AddV2':
        return this.additive(a, b, 1) ?? this.additive(b, a, 1) ?? this.unknown(node);
      case 'Sub':
        return this.additive(a, b, -1) ?? this.unknown(node);
      case 'Select':
      case 'SelectV2':
        return this.selected(node) ?? this.unknown(node);
      default:
        throw new NotRecognised(`its scores come from ${node.name} (${node.op}), which is no scale, mask or product`);
    }
  }

  private unknown({name, op, input}: GraphNodeDef): never {
    if (op === 'Mul' || op === 'RealDiv') {
      throw new NotRecognised(`the scale is not one number in ${name} (${op})`);
    }
    // Recognised, it would attend as TensorFlow does, and no longer as the graph has done in tfjs.
    const isBand = input.some((tensor) => this.graph.isMadeBy(tensor, (node) => node.op === 'MatrixBandPart'));
    const why = isBand ? ': tfjs 4.22 runs MatrixBandPart without its upper bound, so nothing may be hidden' : '';
    throw new NotRecognised(`the mask is not known to be causal in ${name} (${op})${why}`);
  }

  private factor(scores: string, factor: string, op: QueryFactor['op']): string | undefined {
    const number = this.graph.scalar(factor);
    if (number !== undefined) {
      this.scale = op === 'Mul' ? this.scale * number : this.scale / number;
      if (!Number.isFinite(this.scale)) {
        throw new NotRecognised(`the scale is ${this.scale} with ${factor}`);
      }
      return scores;
    }
    if (isScalar(this.graph, factor)) {
      this.queryFactors.push({op, tensor: factor});
      return scores;
    }
    // As GPT-2 masks: scores times 1 or 0, then minus 1e10 or 0. What the product hides, the difference has hidden.
    const form = op === 'Mul' ? maskForm(this.graph, factor) : undefined;
    const isMask = form?.kind === 'triangle' && form.visible === 1 && form.hidden === 0;
    return isMask && this.causal ? scores : undefined;
  }

  private additive(scores: string, mask: string, sign: 1 | -1): string | undefined {
    const form = maskForm(this.graph, mask);
    if (form?.kind !== 'triangle' || !Number.isFinite(form.visible) || this.queryFactors.length > 0) {
      return undefined;
    }
    // What is added everywhere leaves the softmax as it is.
    const difference = sign * this.scale * (form.hidden - form.visible);
    this.causal ||= difference <= hiddenBelow;
    return difference <= hiddenBelow || difference === 0 ? scores : undefined;
  }

  private selected({input: [condition, a, b]}: GraphNodeDef): string | undefined {
    const form = maskForm(this.graph, condition);
    if (form?.kind !== 'triangle' || this.queryFactors.length > 0) {
      return undefined;
    }
    const picksVisible = form.visible !== 0 && form.hidden === 0;
    const picksHidden = form.visible === 0 && form.hidden !== 0;
    const low = uniformValue(this.graph, picksVisible ? b : a);
    if ((!picksVisible && !picksHidden) || low === undefined || !(low * this.scale <= hiddenBelow)) {
      return undefined;
    }
    this.causal = true;
    return picksVisible ? a : b;
  }
}

function uniformValue(graph: GraphView, tensor: string): number | undefined {
  const form = maskForm(graph, tensor);
  return isUniform(form) ? form.visible : undefined;
}

/** Whether a tensor has one value whatever the inputs of the graph: made of constants and of single sizes of a Shape. */
function isScalar(graph: GraphView, tensor: string): boolean {
  const node = graph.source(tensor);
  if (!node) {
    return false;
  }
  if (node.op === 'Const') {
    return graph.scalar(tensor) !== undefined;
  }
  if (node.op === 'StridedSlice') {
    const isOfShape = graph.source(node.input[0])?.op === 'Shape';
    return isOfShape && Number(node.attr['shrink_axis_mask']?.i) === 1;
  }
  const isOfScalars = ['Cast', 'Sqrt', 'Rsqrt', 'Pow', 'Mul', 'RealDiv', 'Reciprocal', 'Neg'].includes(node.op);
  return isOfScalars && node.input.every((input) => isScalar(graph, input));
}
