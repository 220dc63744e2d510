import type {GraphNodeDef, GraphView} from './graph_def.js';

/**
 * The axes of a `StridedSlice`'s output: the number of the input's axis where it keeps it from its beginning, in steps of
 * 1, up to anywhere but the first element, which would be broadcast; `'new'` for a new axis of 1; `'cut'` for an axis of which it
 * keeps another part. None where that is
 * not known.
 */
export function keptAxes(
  graph: GraphView,
  {input, attr}: GraphNodeDef,
  rank: number,
): Array<number | 'new' | 'cut'> | undefined {
  const mask = (name: string) => Number(attr[name]?.i ?? 0);
  const [begin, end, strides] = [1, 2, 3].map((i) => graph.constant(input[i]));
  if (!begin || !strides || mask('ellipsis_mask') !== 0) {
    return undefined;
  }
  const axes: Array<number | 'new' | 'cut'> = [];
  let axis = 0;
  for (let i = 0; i < begin.values.length; ++i) {
    const has = (name: string) => (mask(name) & (1 << i)) !== 0;
    if (has('new_axis_mask')) {
      axes.push('new');
      continue;
    }
    if (!has('shrink_axis_mask')) {
      const isFromStart = (begin.values[i] === 0 || has('begin_mask')) && strides.values[i] === 1;
      const isFirstAlone = end !== undefined && !has('end_mask') && end.values[i] === 1;
      axes.push(isFromStart && !isFirstAlone ? axis : 'cut');
    }
    ++axis;
  }
  for (; axis < rank; ++axis) {
    axes.push(axis);
  }
  return axis === rank ? axes : undefined;
}
