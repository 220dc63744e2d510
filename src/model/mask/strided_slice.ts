import type {AxisLength} from './axis_length.js';
import {axisLengths} from './axis_length.js';
import type {GraphNodeDef} from '../graph_def.js';
import type {GraphView} from '../graph_view.js';

/** An axis of the input that is kept from its beginning, in steps of 1, up to `end` where that is given. */
export interface KeptAxis {
  axis: number;
  end?: AxisLength;
}

/**
 * The axes of a `StridedSlice`'s output: one that is kept from its beginning, up to anywhere but the first element, which would be
 * broadcast; `'new'` for a new axis of 1; `'cut'` for an axis of which it keeps the first element. None where nothing is known, and where
 * nothing may be left of an axis, but by an end that is counted from the back.
 */
export function keptAxes(
  graph: GraphView,
  {input, attr}: GraphNodeDef,
  rank: number,
): Array<KeptAxis | 'new' | 'cut'> | undefined {
  const mask = (name: string) => Number(attr[name]?.i ?? 0);
  const [begin, strides] = [graph.vector(input[1]), graph.vector(input[3])];
  const masks = ['begin_mask', 'end_mask', 'ellipsis_mask', 'new_axis_mask', 'shrink_axis_mask'].map(mask);
  if (
    !masks.every(Number.isInteger) ||
    !begin ||
    !strides ||
    strides.length !== begin.length ||
    mask('ellipsis_mask') !== 0
  ) {
    return undefined;
  }
  const ends = axisLengths(graph, input[2]);
  const axes: Array<KeptAxis | 'new' | 'cut'> = [];
  let axis = 0;
  for (let i = 0; i < begin.length; ++i) {
    const has = (name: string) => (mask(name) & (1 << i)) !== 0;
    if (has('new_axis_mask')) {
      axes.push('new');
      continue;
    }
    if (!has('shrink_axis_mask')) {
      const end = has('end_mask') ? undefined : ends?.[i];
      const isFromStart = (begin[i] === 0 || has('begin_mask')) && strides[i] === 1;
      // Of another part it is not known that there is anything in it.
      if (!isFromStart || (!has('end_mask') && !end)) {
        return undefined;
      }
      axes.push(end === 1 ? 'cut' : {axis, end});
    }
    ++axis;
  }
  for (; axis < rank; ++axis) {
    axes.push({axis});
  }
  return axis === rank ? axes : undefined;
}

/** How long an axis is after a slice; none if that is not known. */
export function lengthAfter(before: AxisLength, {end}: KeptAxis): AxisLength | undefined {
  if (end === undefined) {
    return before;
  }
  if (typeof before === 'string') {
    return undefined;
  }
  if (typeof end === 'string') {
    // Past the end of the axis there is nothing to be kept; scores of such a length would not fit the mask.
    return end;
  }
  return end < 0 ? before + end : Math.min(before, end);
}
