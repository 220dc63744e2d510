import type {AxisLength} from './axis_length.js';
import {axisLength, axisLengths} from './axis_length.js';
import type {Constant, GraphNodeDef} from '../graph_def.js';
import {dataInputs} from '../graph_def.js';
import type {GraphView} from '../graph_view.js';
import type {MaskForm, MaskSize, Positions, Triangle} from './mask_form.js';
import {areSame, isOne, isUniform, lengthSum, sumOf, uniform} from './mask_form.js';
import {NodeValues} from '../node_values.js';
import {isScalar} from '../scalar.js';
import {castForm, cumulativeForm, expandedForm, reshapedForm, slicedForm} from './reshaped_mask.js';

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
    const moved = movedPositions(graph, node, formAt);
    if (moved) {
      return moved;
    }
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
        ? {kind: 'positions', along: 'key', first: lengthSum(0), length: rangeLength(graph, input[1]), rank: 1}
        : undefined;
    case 'ExpandDims':
      return expandedForm(form(0), graph.scalar(input[1]));
    case 'Reshape':
      return reshapedForm(form(0), axisLengths(graph, input[1]));
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

/** The rank to which tensors are broadcast. */
function commonRank(forms: MaskForm[]): number | undefined {
  const ranks = forms.map(({rank}) => rank).filter((rank) => rank !== undefined);
  return ranks.length === forms.length ? Math.max(...ranks) : undefined;
}

function compare(op: (a: number, b: number) => boolean, a?: MaskForm, b?: MaskForm): MaskForm | undefined {
  if (a?.kind !== 'positions' || b?.kind !== 'positions') {
    return combine((x, y) => Number(op(x, y)), a, b);
  }
  const [query, key] = a.along === 'query' ? [a, b] : [b, a];
  if (a.along === b.along) {
    return undefined;
  }
  const size: MaskSize = [query.length, key.length];
  // How many keys the first query sees before the one at its own place.
  const ahead = sumOf(query.first, -1, key.first);
  if (ahead.size > 0) {
    if (sumOf(ahead, -1, sumOf(lengthSum(key.length), -1, lengthSum(query.length))).size > 0) {
      return undefined;
    }
    size.push('end');
  }
  // The key is before, at and after the query: the first two must agree for a triangle.
  const [before, at, after] = [-1, 0, 1].map((key) => (a.along === 'key' ? op(key, 0) : op(0, key)));
  const rank = commonRank([a, b]);
  return before === at ? {kind: 'triangle', visible: Number(at), hidden: Number(after), size, rank} : undefined;
}

/** A constant's form: uniform, a triangle, or positions. */
function constantForm({shape, values}: Constant): MaskForm | undefined {
  const rank = shape.length;
  const lead = shape.slice(0, -2);
  const [rows, columns] = [shape[rank - 2] ?? 1, shape[rank - 1] ?? 1];
  const every = (test: (x: number, i: number) => boolean) => Array.prototype.every.call(values, test);
  const isPositions = values.length > 1 && lead.every(isOne) && every((x, i) => x === i);
  if (isPositions && (columns === values.length || (columns === 1 && rows === values.length))) {
    const along = columns === values.length ? 'key' : 'query';
    return {kind: 'positions', along, first: lengthSum(0), length: values.length, rank};
  }
  if (every((x) => x === values[0])) {
    return values.length > 0 ? uniform(values[0], shape) : undefined;
  }
  if (rows > columns) {
    return undefined;
  }
  const [visible, hidden] = [values[0], values[columns - 1]];
  // With fewer queries than keys, the last query sees them all.
  const isVisible = (i: number) => (i % columns) - (Math.floor(i / columns) % rows) <= columns - rows;
  const isTriangle = lead.every(isOne) && every((x, i) => x === (isVisible(i) ? visible : hidden));
  const size: MaskSize = rows === columns ? [rows, columns] : [rows, columns, 'end'];
  return isTriangle ? {kind: 'triangle', visible, hidden, size, rank} : undefined;
}

/** Positions to which one number is added, or from which it is taken. */
function movedPositions(
  graph: GraphView,
  {op, input}: GraphNodeDef,
  formAt: (tensor: string | undefined) => MaskForm | undefined,
): Positions | undefined {
  const [a, b] = dataInputs(input);
  const isSum = op === 'Add' || op === 'AddV2';
  const [of, by] = isSum && formAt(b)?.kind === 'positions' ? [b, a] : [a, b];
  const form = isSum || op === 'Sub' ? formAt(of) : undefined;
  const constant = graph.constant(by);
  if (form?.kind !== 'positions' || !isScalar(graph, by) || (constant && constant.shape.length > (form.rank ?? 0))) {
    return undefined;
  }
  return {...form, first: sumOf(form.first, isSum ? 1 : -1, lengthSum(axisLength(graph, by)))};
}
