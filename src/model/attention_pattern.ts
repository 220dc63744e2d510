import type {AxisLength} from './axis_length.js';
import type {GraphNodeDef} from './graph_def.js';
import {dataInputs, isFloatType, isPassThrough, nodeName} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import type {MaskForm, MaskSize} from './mask_form.js';
import {areSame, isUniform, maskForm} from './mask_form.js';
import type {ScoreProduct, ValueProduct} from './products.js';
import {isProduct, NotRecognised, scoreProduct, valueProduct} from './products.js';
import {isScalar} from './scalar.js';

/**
 * Hidden scores must lie at least this far below the others, so that their weights are 0 in float32 whatever the scores of a model are.
 * Transformers mask with -1e8, -1e9, -1e10 or the lowest number. Those of float16 mask with -1e4 or -3e4, which scores of thousands outweigh.
 */
const hiddenBelow = -1e8;

/** What is added to every score moves it by rounding alone, up to 2⁻²⁴ of this: the softmax stays as it is. */
const mostAddedEverywhere = 64;

/** Nodes between the two products, and nodes beside them that only they need: attention has some ten. */
const [mostInner, mostBeside] = [64, 1000];

/** A scalar that is no constant, such as the root of the head dim from a Shape; it scales queries as well as scores. */
interface QueryFactor {
  op: 'Mul' | 'RealDiv';
  tensor: string;
}

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
  const removed = checkInner(graph, inner, last);
  for (const {tensor} of [product.query, product.key, value.value]) {
    checkOperand(graph, tensor);
  }
  const stays = [product.query, product.key, value.value, ...scores.queryFactors];
  if (stays.some(({tensor}) => removed.has(nodeName(tensor)))) {
    throw new NotRecognised('its queries, keys, values or scale are made from its scores');
  }
  const {causal, scale, queryFactors} = scores;
  const size = scores.maskSize();
  const lengthOf = (length: AxisLength) => maskLength(graph, length, new Set(inner), removed);
  const maskSize = size && ([lengthOf(size[0]), lengthOf(size[1])] as AttentionPattern['maskSize']);
  return {...product, ...value, causal, scale, queryFactors, ...(maskSize && {maskSize}), inner, last};
}

/** Throws on queries, keys or values with which tfjs computes otherwise in one product than in another. */
function checkOperand(graph: GraphView, tensor: string): void {
  const node = graph.source(tensor);
  const isCast = node?.op === 'Cast' && !isFloatType(node.attr['DstT']?.type);
  if (isCast || isScalar(graph, tensor)) {
    throw new NotRecognised(`${tensor}, which is multiplied, is ${isCast ? 'not of floats' : 'a single number'}`);
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

/** In a loop of the graph, a node is run for each round, and what it is made of is not all there at first. */
function checkAcyclic(graph: GraphView, {name, op}: GraphNodeDef): void {
  if (graph.cyclic.has(name)) {
    throw new NotRecognised(`${name} (${op}) is made of its own result: it is in a loop of the graph`);
  }
}

/** The product that reads the softmax. */
function productOf(graph: GraphView, softmax: GraphNodeDef): {last: GraphNodeDef; between: string[]} {
  const between: string[] = [];
  checkAcyclic(graph, softmax);
  for (let at = softmax; ;) {
    const readers = graph.readersOf(at.name);
    if (graph.outputs.has(at.name)) {
      throw new NotRecognised(`${at.name} is an output of the graph`);
    }
    if (readers.length !== 1) {
      throw new NotRecognised(readBy(at.name, readers));
    }
    [at] = readers;
    checkAcyclic(graph, at);
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

/** Ops that `ScoreReader` takes in. */
const takenOps = ['Mul', 'RealDiv', 'Add', 'AddV2', 'Sub', 'Select', 'SelectV2'];

/** Walks from the softmax up to the product of queries and keys, through scales and masks. */
class ScoreReader {
  causal = false;
  scale = 1;
  readonly queryFactors: QueryFactor[] = [];
  readonly inner: string[] = [];
  /** Of the masks that hide something, and of those that hide nothing. */
  private size?: MaskSize;
  private readonly openSizes: MaskSize[] = [];
  /** The least that a mask lowers later keys by, and where. */
  private weakest?: {difference: number; node: GraphNodeDef};

  constructor(private readonly graph: GraphView) {}

  read(tensor: string | undefined): ScoreProduct {
    for (let at = tensor; ;) {
      const node = this.graph.node(at);
      if (!node) {
        throw new NotRecognised(`its scores come from ${at ?? 'nothing'}, which is not the first output of a node`);
      }
      checkAcyclic(this.graph, node);
      if (this.inner.length >= mostInner) {
        throw new NotRecognised(`more than ${mostInner} nodes lie between its scores and ${this.inner[0]}`);
      }
      this.inner.push(node.name);
      if (isProduct(node)) {
        this.checkWeakest();
        return scoreProduct(this.graph, node);
      }
      at = isPassThrough(node) ? node.input[0] : this.step(node);
    }
  }

  /** The size of all masks together. */
  maskSize(): MaskSize | undefined {
    const size: AxisLength[] = [...(this.size ?? [1, 1])];
    for (const open of this.openSizes) {
      for (const axis of [0, 1]) {
        if (open[axis] === 1 || open[axis] === size[axis]) continue;
        if (this.causal || size[axis] !== 1) {
          throw new NotRecognised(`its masks have several sizes: ${size.join(' by ')} and ${open.join(' by ')}`);
        }
        size[axis] = open[axis];
      }
    }
    const isOfAny = !this.causal && size.every((length) => length === 1);
    return isOfAny ? undefined : (size as MaskSize);
  }

  /** Whether what masks lower scores by outweighs scores that are scaled. */
  private checkWeakest(): void {
    const needed = hiddenBelow * Math.max(1, Math.abs(this.scale));
    if (this.weakest && this.weakest.difference > needed) {
      const {difference, node} = this.weakest;
      throw new NotRecognised(
        `the mask in ${node.name} (${node.op}) lowers later keys by ${difference} alone, which scores outweigh that are multiplied by ` +
          `${this.scale}`,
      );
    }
  }

  /** Takes in a scale or a mask. Returns the tensor that it is applied to. */
  private step(node: GraphNodeDef): string {
    const operands = dataInputs(node.input);
    const wanted = node.op.startsWith('Select') ? 3 : 2;
    if (operands.length !== wanted && takenOps.includes(node.op)) {
      throw new NotRecognised(`${node.name} (${node.op}) has ${operands.length} inputs instead of ${wanted}`);
    }
    const [a, b] = operands;
    switch (node.op) {
      case 'Mul':
        return this.factor(a, b, 'Mul') ?? this.factor(b, a, 'Mul') ?? this.unknown(node);
      case 'RealDiv':
        return this.factor(a, b, 'RealDiv') ?? this.unknown(node);
      case 'Add':
      case 'AddV2':
        return this.additive(node, a, b, 1) ?? this.additive(node, b, a, 1) ?? this.unknown(node);
      case 'Sub':
        return this.additive(node, a, b, -1) ?? this.unknown(node);
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
    const isBand = input.some((tensor) => this.graph.isMadeOf(tensor, 'MatrixBandPart'));
    const why = isBand
      ? ': tfjs 4.22 runs MatrixBandPart without its upper bound, so nothing may be hidden'
      : this.weakMask === undefined
        ? ''
        : `: it lowers later keys by ${this.weakMask} alone, which large scores outweigh; takes ${hiddenBelow} and below`;
    throw new NotRecognised(`the mask is not known to be causal in ${name} (${op})${why}`);
  }

  /** What a causal mask lowers scores by, where that is too little. */
  private weakMask?: number;

  /** Takes in a mask that hides something: of several the sizes are the same. */
  private hides(form: MaskForm & {kind: 'triangle'}, difference: number, node: GraphNodeDef): boolean {
    this.size ??= form.size;
    this.causal = true;
    if (!this.weakest || difference > this.weakest.difference) {
      this.weakest = {difference, node};
    }
    return areSame(this.size, form.size);
  }

  /** Takes in a mask that hides nothing, unless it may have an axis that the scores have not. */
  private isOpen(form: MaskForm & {kind: 'triangle'}): boolean {
    const lengths = form.size ?? form.lengths;
    if (lengths === undefined) return form.rank === 0;
    if (!lengths.slice(0, -2).every((length) => length === 1)) return false;
    this.openSizes.push([lengths.at(-2) ?? 1, lengths.at(-1) ?? 1]);
    return true;
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
    const isMask = form?.kind === 'triangle' && !form.isBool && form.visible === 1 && form.hidden === 0;
    return isMask && this.causal && areSame(this.size, form.size) ? scores : undefined;
  }

  private additive(node: GraphNodeDef, scores: string, mask: string, sign: 1 | -1): string | undefined {
    const form = maskForm(this.graph, mask);
    const addedToAll = form?.kind === 'triangle' ? Math.abs(this.scale * form.visible) : NaN;
    if (
      form?.kind !== 'triangle' ||
      form.isBool ||
      !(addedToAll <= mostAddedEverywhere) ||
      this.queryFactors.length > 0
    ) {
      return undefined;
    }
    const difference = sign * this.scale * (form.hidden - form.visible);
    if (difference <= hiddenBelow) {
      return this.hides(form, difference, node) ? scores : undefined;
    }
    this.weakMask = difference < 0 ? difference : undefined;
    return difference === 0 && this.isOpen(form) ? scores : undefined;
  }

  private selected(node: GraphNodeDef): string | undefined {
    const [condition, a, b] = node.input;
    const form = maskForm(this.graph, condition);
    if (form?.kind !== 'triangle' || this.queryFactors.length > 0) {
      return undefined;
    }
    const picksVisible = form.visible !== 0 && form.hidden === 0;
    const picksHidden = form.visible === 0 && form.hidden !== 0;
    const low = uniformValue(this.graph, picksVisible ? b : a);
    if ((!picksVisible && !picksHidden) || low === undefined) {
      return undefined;
    }
    if (!(low * this.scale <= hiddenBelow)) {
      this.weakMask = low * this.scale;
      return undefined;
    }
    const scores = picksVisible ? a : b;
    return this.hides(form, low * this.scale, node) ? scores : undefined;
  }
}

function uniformValue(graph: GraphView, tensor: string): number | undefined {
  const form = maskForm(graph, tensor);
  return isUniform(form) ? form.visible : undefined;
}
