import type {AxisLength} from './axis_length.js';
import type {GraphNodeDef} from './graph_def.js';
import {dataInputs, isPassThrough} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import type {MaskForm, MaskSize} from './mask_form.js';
import {areSame, isUniform} from './mask_form.js';
import type {ScoreProduct} from './products.js';
import {isProduct, NotRecognised, scoreProduct} from './products.js';
import {maskForm} from './read_mask.js';
import {isScalar} from './scalar.js';

/**
 * Hidden scores must lie at least this far below the others, so that their weights are 0 in float32 whatever the scores of a model are.
 * Transformers mask with -1e8, -1e9, -1e10 or the lowest number. Those of float16 mask with -1e4 or -3e4, which scores of thousands outweigh.
 */
const hiddenBelow = -1e8;

/** What is added to every score moves it by rounding alone, up to 2⁻²⁴ of this: the softmax stays as it is. */
const mostAddedEverywhere = 64;

/** Nodes between the two products: attention has some ten. */
const mostInner = 64;

/** A scalar that is no constant, such as the root of the head dim from a Shape; it scales queries as well as scores. */
export interface QueryFactor {
  op: 'Mul' | 'RealDiv';
  tensor: string;
}

/** In a loop of the graph, a node is run for each round, and what it is made of is not all there at first. */
export function checkAcyclic(graph: GraphView, {name, op}: GraphNodeDef): void {
  if (graph.cyclic.has(name)) {
    throw new NotRecognised(`${name} (${op}) is made of its own result: it is in a loop of the graph`);
  }
}

/** Ops that `ScoreReader` takes in. */
const takenOps = ['Mul', 'RealDiv', 'Add', 'AddV2', 'Sub', 'Select', 'SelectV2'];

/** Walks from the softmax up to the product of queries and keys, through scales and masks. */
export class ScoreReader {
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
