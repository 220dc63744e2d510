import {dataInputs} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import {NodeValues} from './node_values.js';

const opsOfScalars = ['Cast', 'Sqrt', 'Rsqrt', 'Pow', 'Mul', 'RealDiv', 'Reciprocal', 'Neg'];

const scalarsOf = new WeakMap<GraphView, NodeValues<boolean>>();

/** Whether a tensor has one value whatever the inputs of the graph: made of constants and of single sizes of a Shape. */
export function isScalar(graph: GraphView, tensor: string | undefined): boolean {
  let scalars = scalarsOf.get(graph);
  if (!scalars) {
    scalars = new NodeValues<boolean>(
      graph,
      ({op, input}) => (opsOfScalars.includes(op) ? dataInputs(input).slice(0, 2) : []),
      (node, isScalarAt) => {
        if (node.op === 'Const') {
          return graph.scalar(node.name) !== undefined;
        }
        if (node.op === 'StridedSlice') {
          const isOfShape = graph.source(node.input[0])?.op === 'Shape';
          return isOfShape && Number(node.attr['shrink_axis_mask']?.i) === 1;
        }
        const operands = dataInputs(node.input);
        const isOfScalars = opsOfScalars.includes(node.op) && operands.length >= 1 && operands.length <= 2;
        return isOfScalars && operands.every((input) => isScalarAt(input) === true);
      },
    );
    scalarsOf.set(graph, scalars);
  }
  return scalars.of(tensor) ?? false;
}
