import type {io} from '@tensorflow/tfjs-core';
import {io as tfio, tidy} from '@tensorflow/tfjs-core';
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
}

/** Nodes that hand on their input as it is. */
const passThrough = ['Identity', 'StopGradient', 'PreventGradient', 'Snapshot'];
const floatTypes = ['DT_FLOAT', 'DT_HALF', 'DT_DOUBLE', 'DT_BFLOAT16', 1, 2, 14, 19];

/** A graph to look at: nodes by name, who reads whom, and the values of constants. */
export class GraphView {
  readonly nodes = new Map<string, GraphNodeDef>();
  private readonly readers = new Map<string, GraphNodeDef[]>();
  /** Names of nodes that order others, or are ordered by them, through control inputs. */
  readonly ordered = new Set<string>();
  /** Names of the nodes whose results the graph gives. */
  readonly outputs: Set<string>;

  constructor(
    graph: GraphDefJSON,
    outputs: string[],
    private readonly weights: ModelWeights,
  ) {
    for (const {name, op, input, attr, ...others} of graph.node) {
      this.nodes.set(name!, {...others, name: name!, op: op!, input: input ?? [], attr: attr ?? {}});
    }
    for (const node of this.nodes.values()) {
      for (const input of node.input) {
        const source = nodeName(input);
        if (input.startsWith('^')) {
          this.ordered.add(source).add(node.name);
        }
        const readers = this.readers.get(source) ?? [];
        readers.push(node);
        this.readers.set(source, readers);
      }
    }
    // As tfjs does: without a signature, what nobody reads is an output.
    const unread = [...this.nodes.keys()].filter((name) => !this.readers.has(name));
    this.outputs = new Set(outputs.length > 0 ? outputs.map(nodeName) : unread);
  }

  /** The node whose first output a tensor is. */
  node(tensor: string): GraphNodeDef | undefined {
    return this.nodes.get(tensor.replace(/:0$/, ''));
  }

  /** The node that makes a tensor, past those that only hand it on; none for a second output of a node. */
  source(tensor: string): GraphNodeDef | undefined {
    const node = this.node(tensor);
    return node && isPassThrough(node) ? this.source(node.input[0]) : node;
  }

  /** The nodes that read a node, one for each input. */
  readersOf(name: string): GraphNodeDef[] {
    return this.readers.get(name) ?? [];
  }

  /** Whether all that reads a node ends in some nodes, and nothing of it is an output. */
  leadsOnlyInto(name: string, ends: ReadonlySet<string>): boolean {
    // Lists instead of recursion: graphs are deep, and have cycles where they have loops.
    const reached = new Set([name]);
    for (const at of reached) {
      if (ends.has(at)) {
        continue;
      }
      const readers = this.readersOf(at);
      if (readers.length === 0 || this.outputs.has(at)) {
        return false;
      }
      readers.forEach((node) => reached.add(node.name));
    }
    return true;
  }

  /** Whether a tensor is made by a node of some kind, or from the results of one. */
  isMadeBy(tensor: string, isKind: (node: GraphNodeDef) => boolean): boolean {
    const reached = new Set([nodeName(tensor)]);
    for (const name of reached) {
      const node = this.nodes.get(name);
      if (node && isKind(node)) {
        return true;
      }
      node?.input.forEach((input) => reached.add(nodeName(input)));
    }
    return false;
  }

  /** The values of a tensor that is a constant. */
  constant(tensor: string): Constant | undefined {
    const node = this.source(tensor);
    return node?.op === 'Const' ? this.weights.constant(node.name) : undefined;
  }

  /** The value of a constant that has one. */
  scalar(tensor: string): number | undefined {
    const constant = this.constant(tensor);
    return constant?.values.length === 1 ? constant.values[0] : undefined;
  }
}

export function isPassThrough({op, attr}: GraphNodeDef): boolean {
  // tfjs holds every float type as float32.
  const isNoCast = op === 'Cast' && isFloatType(attr['SrcT']?.type) && isFloatType(attr['DstT']?.type);
  return passThrough.includes(op) || isNoCast;
}

/** Whether an attribute's type is one that tfjs holds as float32. */
export function isFloatType(type: unknown): boolean {
  return floatTypes.includes(type as string | number);
}

/** `'name:0'` and `'^name'` → `'name'`. */
export function nodeName(tensor: string): string {
  return tensor.replace(/^\^/, '').replace(/:\d+$/, '');
}

/** The weights of a model: one buffer, which the specs divide in their order. */
export class ModelWeights {
  private readonly places = new Map<string, {spec: io.WeightsManifestEntry; start: number; end: number}>();
  private readonly data: tfio.CompositeArrayBuffer;

  constructor(specs: io.WeightsManifestEntry[], data: io.WeightData) {
    this.data = new tfio.CompositeArrayBuffer(data);
    let start = 0;
    for (const spec of specs) {
      const end = start + this.byteLength(spec, start);
      this.places.set(spec.name, {spec, start, end});
      start = end;
    }
  }

  constant(name: string): Constant | undefined {
    const place = this.places.get(name);
    if (!place || !['float32', 'int32', 'bool'].includes(place.spec.dtype)) {
      return undefined;
    }
    const {spec, start, end} = place;
    const bytes = this.data.slice(start, end);
    const values = tidy(() => Object.values(tfio.decodeWeights(bytes, [spec]))[0].dataSync<'float32'>());
    return {shape: spec.shape, values};
  }

  /** The same weights without some of them, and with others, int32 vectors, at the end. */
  changed(dropped: Set<string>, added: Map<string, number[]>): {specs: io.WeightsManifestEntry[]; data: ArrayBuffer[]} {
    const kept = [...this.places.values()].filter(({spec}) => !dropped.has(spec.name));
    const vectors = [...added].map(([name, values]) => ({name, shape: [values.length], dtype: 'int32' as const}));
    return {
      specs: [...kept.map(({spec}) => spec), ...vectors],
      data: [
        ...kept.map(({start, end}) => this.data.slice(start, end)),
        ...[...added.values()].map((values) => Int32Array.from(values).buffer),
      ],
    };
  }

  private byteLength({dtype, shape, quantization}: io.WeightsManifestEntry, start: number): number {
    const size = shape.reduce((product, length) => product * length, 1);
    if (dtype === 'string') {
      // Each string is its length in bytes, four bytes, and its bytes.
      let end = start;
      for (let i = 0; i < size; ++i) {
        end += 4 + new Uint32Array(this.data.slice(end, end + 4))[0];
      }
      return end - start;
    }
    const bytes = {float32: 4, int32: 4, bool: 1, complex64: 8, float16: 2, uint16: 2, uint8: 1};
    return size * bytes[quantization ? quantization.dtype : dtype];
  }
}
