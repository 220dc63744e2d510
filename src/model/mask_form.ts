import type {Constant, GraphNodeDef, GraphView} from './graph_def.js';
import {isFloatType} from './graph_def.js';
import {keptAxes} from './strided_slice.js';

/**
 * What is known of a tensor that a mask is made of, whatever its lengths: one value where the key is at or before the
 * query and another where it is after (the same, in a uniform tensor); or positions, counted along one of the last two
 * axes. `rank` is left out where it is not known.
 */
export type MaskForm = Triangle | Positions;

interface Triangle {
  kind: 'triangle';
  /** Value where key <= query, with the last two axes for query and key. */
  visible: number;
  /** Value where key > query. */
  hidden: number;
  rank?: number;
}

interface Positions {
  kind: 'positions';
  /** `query`: along the last axis but one, the last being 1 or repeating; `key`: along the last. */
  along: 'query' | 'key';
  first: number;
  rank?: number;
}

const elementwise: Record<string, (...values: number[]) => number> = {
  Add: (a, b) => a + b,
  AddV2: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
  RealDiv: (a, b) => a / b,
  Minimum: Math.min,
  Maximum: Math.max,
  LogicalAnd: (a, b) => Number(a !== 0 && b !== 0),
  LogicalOr: (a, b) => Number(a !== 0 || b !== 0),
  LogicalNot: (a) => Number(a === 0),
  Neg: (a) => -a,
  Select: (condition, a, b) => (condition !== 0 ? a : b),
  SelectV2: (condition, a, b) => (condition !== 0 ? a : b),
};

const comparisons: Record<string, (a: number, b: number) => boolean> = {
  GreaterEqual: (a, b) => a >= b,
  LessEqual: (a, b) => a <= b,
  Greater: (a, b) => a > b,
  Less: (a, b) => a < b,
  Equal: (a, b) => a === b,
  NotEqual: (a, b) => a !== b,
};

/** The form of a tensor, from its values if it is a constant, else from the nodes that make it; none if it has no such form. */
export function maskForm(graph: GraphView, tensor: string): MaskForm | undefined {
  const node = graph.source(tensor);
  const forms = formsOf.get(graph) ?? new Map<string, MaskForm | undefined>();
  formsOf.set(graph, forms);
  if (node && !forms.has(node.name)) {
    forms.set(node.name, formOf(graph, node));
  }
  return node && forms.get(node.name);
}

/** Forms that are known: layers share a mask, whose values are many. */
const formsOf = new WeakMap<GraphView, Map<string, MaskForm | undefined>>();

function formOf(graph: GraphView, node: GraphNodeDef): MaskForm | undefined {
  const {op, input} = node;
  const form = (i: number) => (i < input.length ? maskForm(graph, input[i]) : undefined);
  if (op in elementwise) {
    const operands = input.filter((tensor) => !tensor.startsWith('^'));
    return combine(elementwise[op], ...operands.map((tensor) => maskForm(graph, tensor)));
  }
  if (op in comparisons) {
    return compare(comparisons[op], form(0), form(1));
  }
  switch (op) {
    case 'Const': {
      const constant = graph.constant(node.name);
      return constant && constantForm(constant);
    }
    case 'Cast':
      return castForm(form(0), node.attr['DstT']?.type as unknown);
    case 'Fill': {
      const value = graph.scalar(input[1]);
      return value === undefined ? undefined : uniform(value, lengthOf(graph, input[0]));
    }
    case 'OnesLike':
      return uniform(1);
    case 'ZerosLike':
      return uniform(0);
    case 'Cumsum':
      return cumulativeForm(form(0), graph.scalar(input[1]), node);
    case 'Range':
      return graph.scalar(input[0]) === 0 && graph.scalar(input[2]) === 1
        ? {kind: 'positions', along: 'key', first: 0, rank: 1}
        : undefined;
    case 'ExpandDims':
      return expandedForm(form(0), graph.scalar(input[1]));
    case 'Reshape':
      return reshapedForm(form(0), graph.constant(input[1]));
    case 'BroadcastTo': {
      const x = combine((a) => a, form(0));
      return x && {...x, rank: lengthOf(graph, input[1])};
    }
    case 'StridedSlice':
      return slicedForm(graph, node, form(0));
    default:
      return undefined;
  }
}

function uniform(value: number, rank?: number): Triangle {
  return {kind: 'triangle', visible: value, hidden: value, rank};
}

export function isUniform(form: MaskForm | undefined): form is Triangle {
  return form?.kind === 'triangle' && form.visible === form.hidden;
}

/** What an op makes of values; of positions nothing is known. */
function combine(op: (...values: number[]) => number, ...forms: Array<MaskForm | undefined>): Triangle | undefined {
  const triangles = forms.filter((form) => form?.kind === 'triangle');
  if (triangles.length < forms.length) {
    return undefined;
  }
  const [visible, hidden] = (['visible', 'hidden'] as const).map((part) => op(...triangles.map((form) => form[part])));
  return {kind: 'triangle', visible, hidden, rank: commonRank(triangles)};
}

/** The rank to which tensors are broadcast. */
function commonRank(forms: MaskForm[]): number | undefined {
  const ranks = forms.map(({rank}) => rank).filter((rank) => rank !== undefined);
  return ranks.length === forms.length ? Math.max(...ranks) : undefined;
}

function compare(op: (a: number, b: number) => boolean, a?: MaskForm, b?: MaskForm): MaskForm | undefined {
  if (a?.kind !== 'positions' || b?.kind !== 'positions') {
    return combine((x, y) => Number(op(x, y)), a, b);
  }
  if (a.along === b.along || a.first !== b.first) {
    return undefined;
  }
  // The key is before, at and after the query: the first two must agree for a triangle.
  const [before, at, after] = [-1, 0, 1].map((key) => (a.along === 'key' ? op(key, 0) : op(0, key)));
  const rank = commonRank([a, b]);
  return before === at ? {kind: 'triangle', visible: Number(at), hidden: Number(after), rank} : undefined;
}

/** A constant's form: uniform, the same triangle in all of its matrices, or positions. */
function constantForm({shape, values}: Constant): MaskForm | undefined {
  const rank = shape.length;
  const [rows, columns] = [shape[rank - 2] ?? 1, shape[rank - 1] ?? 1];
  const every = (test: (x: number, i: number) => boolean) => Array.prototype.every.call(values, test);
  const isPositions = values.length > 1 && every((x, i) => x === i);
  if (isPositions && (columns === values.length || (columns === 1 && rows === values.length))) {
    return {kind: 'positions', along: columns === values.length ? 'key' : 'query', first: 0, rank};
  }
  if (every((x) => x === values[0])) {
    return values.length > 0 ? uniform(values[0], rank) : undefined;
  }
  // A diagonal that starts elsewhere is no case of this form, so both lengths must be one.
  if (rows !== columns) {
    return undefined;
  }
  const [visible, hidden] = [values[0], values[1]];
  const isVisible = (i: number) => i % columns <= Math.floor(i / columns) % rows;
  const isTriangle = every((x, i) => x === (isVisible(i) ? visible : hidden));
  return isTriangle ? {kind: 'triangle', visible, hidden, rank} : undefined;
}

function castForm(form: MaskForm | undefined, type: unknown): MaskForm | undefined {
  const isBool = type === 'DT_BOOL' || type === 10;
  const cast = (x: number) => (isBool ? Number(x !== 0) : isFloatType(type) ? x : Math.trunc(x));
  return combine(cast, form) ?? form;
}

/** A running count of ones: positions from 1. tfjs 4.22 gets axes that count from the end wrong, so they have no form. */
function cumulativeForm(
  form: MaskForm | undefined,
  axis: number | undefined,
  {attr}: GraphNodeDef,
): MaskForm | undefined {
  const counts = isUniform(form) && form.visible === 1 && !attr['exclusive']?.b && !attr['reverse']?.b;
  const fromEnd = axis !== undefined && axis >= 0 && form?.rank !== undefined ? axis - form.rank : undefined;
  if (!counts || (fromEnd !== -1 && fromEnd !== -2)) {
    return undefined;
  }
  return {kind: 'positions', along: fromEnd === -1 ? 'key' : 'query', first: 1, rank: form.rank};
}

function expandedForm(form: MaskForm | undefined, axis: number | undefined): MaskForm | undefined {
  if (!form || axis === undefined) {
    return undefined;
  }
  const rank = form.rank === undefined ? undefined : form.rank + 1;
  // From the end of the new shape; before the last two axes, nothing changes.
  const fromEnd = axis < 0 ? axis : rank === undefined ? undefined : axis - rank;
  if (fromEnd === -1 && form.rank === 1 && form.kind === 'positions' && form.along === 'key') {
    return {...form, along: 'query', rank};
  }
  const isVector = form.rank === 1 && fromEnd === -2;
  return isUniform(form) || isVector || (fromEnd !== undefined && fromEnd <= -3) ? {...form, rank} : undefined;
}

/** Reshapes that only put axes of 1 in front, or turn a vector of positions upright. */
function reshapedForm(form: MaskForm | undefined, shape: Constant | undefined): MaskForm | undefined {
  if (!form || !shape) {
    return undefined;
  }
  const sizes = Array.from(shape.values);
  const rank = sizes.length;
  if (isUniform(form)) {
    return {...form, rank};
  }
  const isFront = (count: number) => sizes.slice(0, rank - count).every((size) => size === 1);
  if (form.kind === 'positions' && form.rank === 1) {
    const isUpright = rank >= 2 && sizes[rank - 1] === 1 && isFront(2);
    return isUpright ? {...form, along: 'query', rank} : isFront(1) && rank >= 1 ? {...form, rank} : undefined;
  }
  return undefined;
}

function slicedForm(graph: GraphView, node: GraphNodeDef, form: MaskForm | undefined): MaskForm | undefined {
  if (!form || form.rank === undefined) {
    return undefined;
  }
  const axes = keptAxes(graph, node, form.rank);
  if (!axes) {
    return undefined;
  }
  const rank = axes.length;
  if (isUniform(form)) {
    return {...form, rank};
  }
  const [last, before] = [axes[rank - 1], axes[rank - 2]];
  if (form.kind === 'positions' && form.rank === 1) {
    return last === 0 ? {...form, rank} : before === 0 && last === 'new' ? {...form, along: 'query', rank} : undefined;
  }
  return last === form.rank - 1 && before === form.rank - 2 ? {...form, rank} : undefined;
}

/** How many values a shape tensor has, which is the rank of the tensor of that shape. */
function lengthOf(graph: GraphView, tensor: string): number | undefined {
  const node = graph.source(tensor);
  return node?.op === 'Pack' ? node.input.length : graph.constant(tensor)?.values.length;
}
