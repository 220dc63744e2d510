import type {GraphView} from '../graph_view.js';

/** How long an axis is: a number, or the name of the tensor that says it. */
export type AxisLength = number | string;

/** tfjs has tensors of rank 6. */
const highestRank = 8;

export function axisLength(graph: GraphView, scalar: string): AxisLength {
  return graph.scalar(scalar) ?? graph.source(scalar)?.name ?? scalar;
}

/** The lengths that a shape tensor holds, which is a constant or packed of scalars. */
export function axisLengths(graph: GraphView, shape: string | undefined): AxisLength[] | undefined {
  const node = graph.source(shape);
  if (node?.op !== 'Pack') {
    return graph.vector(shape);
  }
  return node.input.length > highestRank ? undefined : node.input.map((scalar) => axisLength(graph, scalar));
}
