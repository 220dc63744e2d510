import type {AxisLength} from './mask/axis_length.js';
import type {GraphNodeDef} from './graph_def.js';
import {dataInputs, isPassThrough, nodeName} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import type {MaskSize, Triangle} from './mask/mask_form.js';
import {areSame, isUniform} from './mask/mask_form.js';
import type {ScoreProduct} from './products.js';
import {isMadeOfProduct, isProduct, NotRecognised, scoreProduct, swapsLastAxes} from './products.js';
import {maskForm} from './mask/read_mask.js';
import {isScalar} from './scalar.js';

/** What is added to every score moves it by rounding alone, up to 2⁻²⁴ of this: the softmax stays as it is. */
const mostAddedEverywhere = 64;

/** Nodes between the two products: attention has some ten. */
const mostInner = 64;

/** A scalar that is no constant, such as the root of the head dim from a Shape; it scales queries as well as scores. */
export interface QueryFactor {
  op: 'Mul' | 'RealDiv';
  tensor: string;
}

/** What is added to the scores, once they are scaled, and stays in the graph. */
export interface AddedMask {
  /** Added, subtracted, or a condition: true where a key is seen, or where it is hidden. */
  kind: 'added' | 'subtracted' | 'visible' | 'hidden';
  tensor: string;
  /** The number that hidden scores become, of a condition. */
  low?: number;
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
  /** From the softmax upwards: each is applied to the scores with the masks behind it. */
  readonly masks: AddedMask[] = [];
  /** Whether the softmax runs along the columns of the product, that is over its first factor. */
  isTransposed = false;
  readonly inner: string[] = [];
  /** Of the masks that hide something, and of those that hide nothing. */
  private size?: MaskSize;
  private readonly openSizes: MaskSize[] = [];
  /** The least that a mask lowers later keys by, and where. */
  private weakest?: {difference: number; node: GraphNodeDef};

  /** @param hiddenBelow what a causal mask must lower later keys by, at least. */
  constructor(
    private readonly graph: GraphView,
    private readonly hiddenBelow: number,
  ) {}

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
        const {query, key} = scoreProduct(this.graph, node);
        return this.isTransposed ? {query: key, key: query} : {query, key};
      }
      at = isPassThrough(node) ? node.input[0] : this.step(node);
    }
  }

  /** The size of all masks together. */
  maskSize(): MaskSize | undefined {
    const [queries, keys, end]: MaskSize = this.size ?? [1, 1];
    const size: [AxisLength, AxisLength] = [queries, keys];
    for (const open of this.openSizes) {
      for (const axis of [0, 1] as const) {
        if (open[axis] === 1 || open[axis] === size[axis]) continue;
        if (this.causal || size[axis] !== 1) {
          throw new NotRecognised(`its masks have several sizes: ${size.join(' by ')} and ${open.join(' by ')}`);
        }
        size[axis] = open[axis];
      }
    }
    const isOfAny = !this.causal && size.every((length) => length === 1);
    return isOfAny ? undefined : end ? [...size, end] : size;
  }

  /** Whether what masks lower scores by outweighs scores that are scaled. */
  private checkWeakest(): void {
    const needed = this.hiddenBelow * Math.max(1, Math.abs(this.scale));
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
      case 'Transpose':
        if (!swapsLastAxes(this.graph, node)) break;
        this.isTransposed = !this.isTransposed;
        return a;
    }
    throw new NotRecognised(`its scores come from ${node.name} (${node.op}), which is no scale, mask or product`);
  }

  private unknown({name, op}: GraphNodeDef): never {
    if (this.weakMask !== undefined) {
      const by = Number(this.weakMask.toPrecision(6));
      throw new NotRecognised(
        `the mask in ${name} (${op}) lowers later keys by ${by} alone, which large scores outweigh: option hiddenBelow takes it from ${by}`,
      );
    }
    throw new NotRecognised(
      op === 'Mul' || op === 'RealDiv'
        ? `the scale is not one number in ${name} (${op})`
        : `the mask in ${name} (${op}) is not understood; takes masks of one size, on scores of one product that are scaled already`,
    );
  }

  /** What a causal mask lowers scores by, where that is too little. */
  private weakMask?: number;

  /** Takes in a mask that hides something: of several the sizes are the same. */
  private hides(form: Triangle, difference: number, node: GraphNodeDef): boolean {
    this.size ??= form.size;
    this.causal = true;
    if (!this.weakest || difference > this.weakest.difference) {
      this.weakest = {difference, node};
    }
    return areSame(this.size, form.size);
  }

  /** Takes in a mask that hides nothing, unless it may have an axis that the scores have not. */
  private isOpen(form: Triangle): boolean {
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
    // As GPT-2 masks: scores times 1 or 0, then minus 1e10 or 0. What the product hides, the difference has hidden. The scale may be in it.
    const form = op === 'Mul' ? maskForm(this.graph, factor) : undefined;
    if (form?.kind !== 'triangle' || form.isBool || form.hidden !== 0 || this.isTransposed) {
      return undefined;
    }
    this.scale *= form.visible;
    return this.causal && areSame(this.size, form.size) ? scores : undefined;
  }

  private additive(node: GraphNodeDef, scores: string, mask: string, sign: 1 | -1): string | undefined {
    const form = maskForm(this.graph, mask);
    const isKnown = form?.kind === 'triangle' && !form.isBool;
    const addedToAll = isKnown ? Math.abs(this.scale * form.visible) : NaN;
    if (isKnown && addedToAll <= mostAddedEverywhere && this.queryFactors.length === 0 && !this.isTransposed) {
      const difference = sign * this.scale * (form.hidden - form.visible);
      if (difference <= this.hiddenBelow) {
        return this.hides(form, difference, node) ? scores : undefined;
      }
      this.weakMask = difference < 0 ? difference : undefined;
      if (difference === 0 && this.isOpen(form)) {
        return scores;
      }
    }
    // In a sum of numbers that large, scores are lost by rounding, and nothing else rounds as the graph does. What lowers some keys alone hides
    // them; what raises some may be undone by another mask.
    const added = form?.kind === 'triangle' ? [sign * form.visible, sign * form.hidden] : [];
    const losesScores =
      added.some((x) => x > mostAddedEverywhere) || (added.length > 0 && added.every((x) => x < -mostAddedEverywhere));
    return losesScores ? undefined : this.keepMask(scores, {kind: sign === 1 ? 'added' : 'subtracted', tensor: mask});
  }

  /** Keeps a mask as it is, if scores come from one side alone and nothing scales the two together. */
  private keepMask(scores: string, mask: AddedMask): string | undefined {
    const isLast = this.scale === 1 && this.queryFactors.length === 0 && !this.isTransposed;
    const isApart = isMadeOfProduct(this.graph, scores) && !isMadeOfProduct(this.graph, mask.tensor);
    if (!isLast || !isApart || this.graph.cyclic.has(nodeName(mask.tensor))) {
      return undefined;
    }
    this.masks.push(mask);
    return scores;
  }

  private selected(node: GraphNodeDef): string | undefined {
    const [condition, a, b] = node.input;
    const form = maskForm(this.graph, condition);
    const picksVisible = form?.kind === 'triangle' && form.visible !== 0 && form.hidden === 0;
    const picksHidden = form?.kind === 'triangle' && form.visible === 0 && form.hidden !== 0;
    const low = picksVisible || picksHidden ? uniformValue(this.graph, picksVisible ? b : a) : undefined;
    if (low !== undefined && this.queryFactors.length === 0 && !this.isTransposed) {
      if (low * this.scale <= this.hiddenBelow) {
        return this.hides(form as Triangle, low * this.scale, node) ? (picksVisible ? a : b) : undefined;
      }
      this.weakMask = low * this.scale;
      return undefined;
    }
    return this.selectedBy(condition, a, b, 'visible') ?? this.selectedBy(condition, b, a, 'hidden');
  }

  /** Takes in a selection by a condition of any form, of scores and of a number so low that adding it does the same. */
  private selectedBy(condition: string, scores: string, other: string, kind: 'visible' | 'hidden'): string | undefined {
    const low = uniformValue(this.graph, other);
    const tensor = this.withoutTrue(condition);
    return low !== undefined && low <= this.hiddenBelow ? this.keepMask(scores, {kind, tensor, low}) : undefined;
  }

  /** A condition, of which Keras 3 makes a LogicalAnd with a tensor as large as the scores that is true throughout. */
  private withoutTrue(condition: string): string {
    const node = this.graph.source(condition);
    const operands = node?.op === 'LogicalAnd' ? dataInputs(node.input) : [];
    const others = operands.filter((tensor) => uniformValue(this.graph, tensor) !== 1);
    return operands.length === 2 && others.length === 1 ? others[0] : condition;
  }
}

function uniformValue(graph: GraphView, tensor: string): number | undefined {
  const form = maskForm(graph, tensor);
  return isUniform(form) ? form.visible : undefined;
}
