import type {AxisLength} from './axis_length.js';
import {axisLength, axisLengths} from './axis_length.js';
import type {Constant, GraphNodeDef} from './graph_def.js';
import {dataInputs, isFloatType} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import {NodeValues} from './node_values.js';
import type {KeptAxis} from './strided_slice.js';
import {keptAxes, lengthAfter} from './strided_slice.js';

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
  /** How many queries and keys it has, unless both values are the same: with 1 instead of all of them nothing is hidden. */
  size?: MaskSize;
  /** Of a tensor that is true or false, with which tfjs computes otherwise than TensorFlow, if at all. */
  isBool?: boolean;
  /** Of a uniform tensor, where they are known. */
  lengths?: AxisLength[];
  rank?: number;
}

interface Positions {
  kind: 'positions';
  /** `query`: along the last axis but one, the last being 1 or repeating; `key`: along the last. */
  along: 'query' | 'key';
  first: number;
  length: AxisLength;
  rank?: number;
}

/** Numbers of queries and of keys. */
export type MaskSize = [queries: AxisLength, keys: AxisLength];

const elementwise: Record<string, (...values: number[]) => number> = {
  Add: (a, b) => a + b,
  AddV2: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
  RealDiv: (a, b) => a / b,
  Minimum: (a, b) => Math.min(a, b),
  Maximum: (a, b) => Math.max(a, b),
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
export function maskForm(graph: GraphView, tensor: string | undefined): MaskForm | undefined {
  let forms = formsOf.get(graph);
  if (!forms) {
    forms = new NodeValues(graph, formedFrom, (node, formAt) => formOf(graph, node, formAt));
    formsOf.set(graph, forms);
  }
  return forms.of(tensor);
}

/** Forms that are known: layers share a mask, whose values are many. */
const formsOf = new WeakMap<GraphView, NodeValues<MaskForm>>();

/** Ops that change the form of their first input. */
const reshaping = ['Cast', 'Cumsum', 'ExpandDims', 'Reshape', 'BroadcastTo', 'StridedSlice'];

/** The inputs whose forms a node's follows from. */
function formedFrom({op, input}: GraphNodeDef): string[] {
  const operands = dataInputs(input);
  if (Object.hasOwn(elementwise, op)) {
    return operands.length === arity(op) ? operands : [];
  }
  return Object.hasOwn(comparisons, op) ? operands.slice(0, 2) : reshaping.includes(op) ? operands.slice(0, 1) : [];
}

const arity = (op: string): number => elementwise[op].length;

function formOf(
  graph: GraphView,
  node: GraphNodeDef,
  formAt: (tensor: string | undefined) => MaskForm | undefined,
): MaskForm | undefined {
  const {op, input} = node;
  const form = (i: number) => formAt(input[i]);
  if (Object.hasOwn(elementwise, op)) {
    const forms = formedFrom(node).map(formAt);
    const isLogical = op.startsWith('Logical');
    // A condition may be true or false, and so may be what it chooses from.
    const numbers = isLogical ? [] : op.startsWith('Select') ? forms.slice(1) : forms;
    const hasBool = numbers.some((operand) => operand?.kind === 'triangle' && operand.isBool);
    return forms.length === 0 || hasBool ? undefined : asBool(combine(elementwise[op], ...forms), isLogical);
  }
  if (Object.hasOwn(comparisons, op)) {
    return asBool(compare(comparisons[op], form(0), form(1)), true);
  }
  switch (op) {
    case 'Const': {
      const constant = graph.constant(node.name);
      return constant && asBool(constantForm(constant), constant.isBool);
    }
    case 'Cast':
      return castForm(form(0), node.attr['DstT']?.type as unknown);
    case 'Fill': {
      const value = graph.scalar(input[1]);
      return value === undefined ? undefined : uniform(value, axisLengths(graph, input[0]));
    }
    case 'OnesLike':
      return uniform(1);
    case 'ZerosLike':
      return uniform(0);
    case 'Cumsum':
      return cumulativeForm(form(0), graph.scalar(input[1]), node);
    case 'Range':
      return graph.scalar(input[0]) === 0 && graph.scalar(input[2]) === 1
        ? {kind: 'positions', along: 'key', first: 0, length: rangeLength(graph, input[1]), rank: 1}
        : undefined;
    case 'ExpandDims':
      return expandedForm(form(0), graph.scalar(input[1]));
    case 'Reshape':
      return reshapedForm(form(0), graph.vector(input[1]));
    case 'BroadcastTo': {
      const x = combine((a) => a, form(0));
      const lengths = axisLengths(graph, input[1]);
      if (!x || isUniform(x)) {
        return x && {...x, lengths, rank: lengths?.length};
      }
      return lengths?.slice(0, -2).every(isOne) ? {...x, rank: lengths.length} : undefined;
    }
    case 'StridedSlice':
      return slicedForm(graph, node, form(0));
    default:
      return undefined;
  }
}

function asBool(form: MaskForm | undefined, isBool: boolean): MaskForm | undefined {
  return form?.kind === 'triangle' ? {...form, isBool} : isBool ? undefined : form;
}

/** How many positions a Range from 0 in steps of 1 has. */
function rangeLength(graph: GraphView, limit: string): AxisLength {
  const length = axisLength(graph, limit);
  return typeof length === 'number' ? Math.ceil(length) : length;
}

function uniform(value: number, lengths?: AxisLength[]): Triangle {
  return {kind: 'triangle', visible: value, hidden: value, lengths, rank: lengths?.length};
}

/** A tensor of one value. */
type Uniform = Triangle & {size?: undefined};

export function isUniform(form: MaskForm | undefined): form is Uniform {
  return form?.kind === 'triangle' && form.visible === form.hidden;
}

/** What an op makes of values; of positions nothing is known. */
function combine(op: (...values: number[]) => number, ...forms: Array<MaskForm | undefined>): Triangle | undefined {
  const triangles = forms.filter((form) => form?.kind === 'triangle');
  if (triangles.length < forms.length) {
    return undefined;
  }
  // The graph computes in float32, in which a large number may be infinite.
  const [visible, hidden] = (['visible', 'hidden'] as const).map((part) =>
    Math.fround(op(...triangles.map((form) => form[part]))),
  );
  const [size, ...others] = triangles.filter((form) => !isUniform(form)).map((form) => form.size);
  // Masks of several sizes are broadcast to each other.
  return others.every((other) => areSame(size, other))
    ? {kind: 'triangle', visible, hidden, size, rank: commonRank(triangles)}
    : undefined;
}

/** Whether sizes are known to be the same. */
export function areSame(a: MaskSize | undefined, b: MaskSize | undefined): boolean {
  return a !== undefined && b !== undefined && a[0] === b[0] && a[1] === b[1];
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
  const size: MaskSize = a.along === 'key' ? [b.length, a.length] : [a.length, b.length];
  return before === at ? {kind: 'triangle', visible: Number(at), hidden: Number(after), size, rank} : undefined;
}

/** Of other lengths in front of the last two axes it is not known that the scores have them. */
const isOne = (length: AxisLength): boolean => length === 1;

/** A constant's form: uniform, a triangle, or positions. */
function constantForm({shape, values}: Constant): MaskForm | undefined {
  const rank = shape.length;
  const lead = shape.slice(0, -2);
  const [rows, columns] = [shape[rank - 2] ?? 1, shape[rank - 1] ?? 1];
  const every = (test: (x: number, i: number) => boolean) => Array.prototype.every.call(values, test);
  const isPositions = values.length > 1 && lead.every(isOne) && every((x, i) => x === i);
  if (isPositions && (columns === values.length || (columns === 1 && rows === values.length))) {
    const along = columns === values.length ? 'key' : 'query';
    return {kind: 'positions', along, first: 0, length: values.length, rank};
  }
  if (every((x) => x === values[0])) {
    return values.length > 0 ? uniform(values[0], shape) : undefined;
  }
  // A diagonal that starts elsewhere is no case of this form, so both lengths must be one.
  if (rows !== columns) {
    return undefined;
  }
  const [visible, hidden] = [values[0], values[1]];
  const isVisible = (i: number) => i % columns <= Math.floor(i / columns) % rows;
  const isTriangle = lead.every(isOne) && every((x, i) => x === (isVisible(i) ? visible : hidden));
  return isTriangle ? {kind: 'triangle', visible, hidden, size: [rows, columns], rank} : undefined;
}

function castForm(form: MaskForm | undefined, type: unknown): MaskForm | undefined {
  const isBool = type === 'DT_BOOL' || type === 10;
  const isInteger = ['DT_INT32', 'DT_INT64', 3, 9].includes(type as string | number);
  if (!form || (!isBool && !isInteger && !isFloatType(type))) {
    return undefined;
  }
  if (form.kind === 'positions') {
    return isBool ? undefined : form;
  }
  const cast = (x: number) => (isBool ? Number(x !== 0) : isInteger ? Math.trunc(x) : x);
  return {...form, visible: cast(form.visible), hidden: cast(form.hidden), isBool};
}

/** A running count of ones: positions from 1. tfjs 4.22 gets axes that count from the end wrong, so they have no form. */
function cumulativeForm(
  form: MaskForm | undefined,
  axis: number | undefined,
  {attr}: GraphNodeDef,
): MaskForm | undefined {
  const counts = isUniform(form) && form.visible === 1 && !attr['exclusive']?.b && !attr['reverse']?.b;
  const fromEnd = axis !== undefined && axis >= 0 && form?.rank !== undefined ? axis - form.rank : undefined;
  const lengths = fromEnd === -1 || fromEnd === -2 ? (form as Triangle).lengths : undefined;
  const length = lengths?.at(fromEnd!);
  if (!counts || length === undefined || !lengths!.slice(0, -2).every(isOne)) {
    return undefined;
  }
  return {kind: 'positions', along: fromEnd === -1 ? 'key' : 'query', first: 1, length, rank: form.rank};
}

function expandedForm(form: MaskForm | undefined, axis: number | undefined): MaskForm | undefined {
  if (!form || axis === undefined) {
    return undefined;
  }
  if (isUniform(form)) {
    return withoutLengths(form, form.rank === undefined ? undefined : form.rank + 1);
  }
  const rank = form.rank === undefined ? undefined : form.rank + 1;
  // From the end of the new shape; before the last two axes, nothing changes.
  const fromEnd = axis < 0 ? axis : rank === undefined ? undefined : axis - rank;
  if (fromEnd === -1 && form.rank === 1 && form.kind === 'positions' && form.along === 'key') {
    return {...form, along: 'query', rank};
  }
  const isVector = form.rank === 1 && fromEnd === -2;
  return isVector || (fromEnd !== undefined && fromEnd <= -3) ? {...form, rank} : undefined;
}

function withoutLengths(form: Triangle, rank: number | undefined): Triangle {
  return {...form, lengths: undefined, rank};
}

/** Reshapes that only put axes of 1 in front, or turn a vector of positions upright. */
function reshapedForm(form: MaskForm | undefined, sizes: number[] | undefined): MaskForm | undefined {
  if (!form || !sizes) {
    return undefined;
  }
  const rank = sizes.length;
  if (isUniform(form)) {
    return withoutLengths(form, rank);
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
    return withoutLengths(form, rank);
  }
  const [last, before] = [axes[rank - 1], axes[rank - 2]];
  if (form.kind === 'positions') {
    const areBothKept = isKept(last, form.rank - 1) && isKept(before, form.rank - 2);
    const isVectorKept = form.rank === 1 && isKept(last, 0);
    const isUpright = form.rank === 1 && isKept(before, 0) && last === 'new';
    const along = isUpright ? 'query' : form.along;
    const kept = along === 'query' ? before : last;
    const isKnown = (areBothKept || isVectorKept || isUpright) && typeof kept === 'object';
    const length = isKnown ? lengthAfter(form.length, kept) : undefined;
    return length === undefined ? undefined : {...form, along, length, rank};
  }
  if (!isKept(last, form.rank - 1) || !isKept(before, form.rank - 2) || !form.size) {
    return undefined;
  }
  const [queries, keys] = [lengthAfter(form.size[0], before), lengthAfter(form.size[1], last)];
  return queries === undefined || keys === undefined ? undefined : {...form, size: [queries, keys], rank};
}

function isKept(kept: KeptAxis | 'new' | 'cut' | undefined, axis: number): kept is KeptAxis {
  return typeof kept === 'object' && kept.axis === axis;
}
