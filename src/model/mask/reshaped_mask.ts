import type {GraphNodeDef} from '../graph_def.js';
import {isFloatType} from '../graph_def.js';
import type {GraphView} from '../graph_view.js';
import type {AxisLength} from './axis_length.js';
import type {MaskForm, Triangle} from './mask_form.js';
import {isOne, isUniform, lengthSum} from './mask_form.js';
import type {KeptAxis} from './strided_slice.js';
import {keptAxes, lengthAfter} from './strided_slice.js';

export function castForm(form: MaskForm | undefined, type: unknown): MaskForm | undefined {
  const isBool = type === 'DT_BOOL' || type === 10;
  const isInteger = ['DT_INT32', 'DT_INT64', 3, 9].includes(type as string | number);
  if (!form || (!isBool && !isInteger && !isFloatType(type))) {
    return undefined;
  }
  if (form.kind === 'positions') {
    return isBool ? undefined : form;
  }
  // tfjs holds integers in 32 bits; what they make of a larger number is not known.
  if (isInteger && !(Math.max(Math.abs(form.visible), Math.abs(form.hidden)) < 2 ** 31)) {
    return undefined;
  }
  const cast = (x: number) => (isBool ? Number(x !== 0) : isInteger ? Math.trunc(x) : x);
  return {...form, visible: cast(form.visible), hidden: cast(form.hidden), isBool};
}

/** A running count of ones: positions from 1. tfjs 4.22 gets axes that count from the end wrong, so they have no form. */
export function cumulativeForm(
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
  return {kind: 'positions', along: fromEnd === -1 ? 'key' : 'query', first: lengthSum(1), length, rank: form.rank};
}

export function expandedForm(form: MaskForm | undefined, axis: number | undefined): MaskForm | undefined {
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

/** Reshapes that only put axes of 1 in front, or take them away, or turn a vector of positions upright. */
export function reshapedForm(form: MaskForm | undefined, sizes: AxisLength[] | undefined): MaskForm | undefined {
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
  // A triangle's axes in front of the last two are 1.
  if (form.kind === 'triangle' && isFront(2) && sizes.at(-2) === form.size?.[0] && sizes.at(-1) === form.size?.[1]) {
    return {...form, rank};
  }
  return undefined;
}

export function slicedForm(graph: GraphView, node: GraphNodeDef, form: MaskForm | undefined): MaskForm | undefined {
  if (!form || form.rank === undefined) {
    return undefined;
  }
  const axes = keptAxes(graph, node, form.rank);
  if (!axes) {
    return undefined;
  }
  const rank = axes.length;
  // Of the last two axes the lengths are computed.
  if ((isUniform(form) ? axes : axes.slice(0, -2)).some(isCutFromBack)) {
    return undefined;
  }
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
  // Cut, queries would no longer end with the keys.
  if (form.size[2] === 'end' && (last.end !== undefined || before.end !== undefined)) {
    return undefined;
  }
  const [queries, keys] = [lengthAfter(form.size[0], before), lengthAfter(form.size[1], last)];
  const isKnown = queries !== undefined && keys !== undefined;
  return isKnown ? {...form, size: form.size[2] ? form.size : [queries, keys], rank} : undefined;
}

const isCutFromBack = (kept: KeptAxis | 'new' | 'cut'): boolean => typeof kept === 'object' && Number(kept.end) < 0;

function isKept(kept: KeptAxis | 'new' | 'cut' | undefined, axis: number): kept is KeptAxis {
  return typeof kept === 'object' && kept.axis === axis;
}
