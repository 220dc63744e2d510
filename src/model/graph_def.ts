import type {IAttrValue, INodeDef} from '@tensorflow/tfjs-converter';

/** A node, with what a GraphDef in JSON may leave out filled in. */
export interface GraphNodeDef extends INodeDef {
  name: string;
  op: string;
  input: string[];
  attr: Record<string, IAttrValue>;
}

/** What a graph model's `modelTopology` is: GraphDef in the JSON form of protocol buffers. */
export interface GraphDefJSON {
  node: INodeDef[];
  library?: {function?: Array<{signature: {name: string}; nodeDef?: INodeDef[]}>};
  versions?: unknown;
}

/** A constant's values, row-major. */
export interface Constant {
  shape: number[];
  values: ArrayLike<number>;
  isBool: boolean;
}

/** Nodes that hand on their input as it is. */
const passThrough = ['Identity', 'StopGradient', 'PreventGradient', 'Snapshot'];
const floatTypes = ['DT_FLOAT', 'DT_HALF', 'DT_DOUBLE', 'DT_BFLOAT16', 1, 2, 14, 19];

/** Whether a node hands on its one input, other than those that only order nodes. */
export function isPassThrough({op, attr, input}: GraphNodeDef): boolean {
  // tfjs holds every float type as float32.
  const isNoCast = op === 'Cast' && isFloatType(attr['SrcT']?.type) && isFloatType(attr['DstT']?.type);
  return (passThrough.includes(op) || isNoCast) && dataInputs(input).length === 1;
}

/** Whether an attribute's type is one that tfjs holds as float32. */
export function isFloatType(type: unknown): boolean {
  return floatTypes.includes(type as string | number);
}

/** `'name:0'` and `'^name'` → `'name'`. */
export function nodeName(tensor: string): string {
  return tensor.replace(/^\^/, '').replace(/:\d+$/, '');
}

/** Inputs that bring a tensor. */
export function dataInputs(input: string[]): string[] {
  return input.filter((tensor) => !tensor.startsWith('^'));
}

/** A name, cut where it is long. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}
