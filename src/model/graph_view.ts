import {check} from '../ops/check_arguments.js';
import {cyclicNodes} from './cycles.js';
import type {Constant, GraphDefJSON, GraphNodeDef} from './graph_def.js';
import {isFloatType, isPassThrough, nodeName, quoted} from './graph_def.js';
import type {ModelWeights} from './model_weights.js';

/** Most values of a constant that is read as a shape, a permutation or the bounds of a slice: tfjs has tensors of rank 6. */
const longestVector = 16;

const opsOfNoFloats = [
  ...['Equal', 'NotEqual', 'Greater', 'GreaterEqual', 'Less', 'LessEqual', 'LogicalAnd', 'LogicalOr', 'LogicalNot'],
  ...['Shape', 'Size', 'Rank'],
];

/**
 * A graph to look at: nodes by name, who reads whom, and the values of constants. Whatever the graph, each of its methods takes a time
 * that is bounded by its result, or is paid once for each node.
 */
export class GraphView {
  readonly nodes = new Map<string, GraphNodeDef>();
  /** Names of nodes that order others, or are ordered by them, through control inputs. */
  readonly ordered = new Set<string>();
  /** Names of the nodes whose results the graph gives. */
  readonly outputs: Set<string>;
  /** Names of nodes that are made of their own results, such as those of a loop. */
  readonly cyclic: Set<string>;
  /** A Transpose by an order that lacks an axis: tfjs makes a tensor of it that has fewer values than its shape says. */
  readonly brokenTranspose?: GraphNodeDef;
  private readonly readers = new Map<string, GraphNodeDef[]>();
  private readonly sources = new Map<string, GraphNodeDef | undefined>();

  /** @throws Error, in the name of `op`, if the nodes are not what a GraphDef in JSON has. */
  constructor(
    op: string,
    graph: GraphDefJSON,
    outputs: string[],
    private readonly weights: ModelWeights,
  ) {
    for (const [i, node] of graph.node.entries()) {
      const {name, input, attr, ...others} = checkNode(op, node, i);
      check(!this.nodes.has(name), op, 'modelArtifacts', `got two nodes named ${quoted(name)}`, 'names of their own');
      this.nodes.set(name, {...others, name, input: input ?? [], attr: attr ?? {}});
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
    this.cyclic = cyclicNodes(this.nodes);
    this.brokenTranspose = [...this.nodes.values()].find(
      (node) => node.op === 'Transpose' && !isOrder(this.vector(node.input[1]) ?? []),
    );
  }

  /** The node whose first output a tensor is. */
  node(tensor: string | undefined): GraphNodeDef | undefined {
    return tensor === undefined ? undefined : this.nodes.get(tensor.replace(/:0$/, ''));
  }

  /**
   * The node that makes a tensor, past those that only hand it on; none for a second output of a node, and for one that is made of its own
   * results.
   */
  source(tensor: string | undefined): GraphNodeDef | undefined {
    const passed: string[] = [];
    let node = this.node(tensor);
    while (node && isPassThrough(node) && !this.sources.has(node.name) && !this.cyclic.has(node.name)) {
      passed.push(node.name);
      node = this.node(node.input.find((input) => !input.startsWith('^')));
    }
    const source = node && this.sources.has(node.name) ? this.sources.get(node.name) : node;
    const found = source && this.cyclic.has(source.name) ? undefined : source;
    // So that a chain is walked once, however many read it.
    passed.forEach((name) => this.sources.set(name, found));
    return found;
  }

  /** The nodes that read a node, one for each input. */
  readersOf(name: string): GraphNodeDef[] {
    return this.readers.get(name) ?? [];
  }

  /** The values of a tensor that is a constant. */
  constant(tensor: string | undefined): Constant | undefined {
    const node = this.source(tensor);
    return node?.op === 'Const' ? this.weights.constant(node.name) : undefined;
  }

  /** Whether a tensor is known to hold integers, or true and false. */
  isOfNoFloats(tensor: string | undefined): boolean {
    const node = this.source(tensor);
    if (node?.op === 'Cast') {
      return !isFloatType(node.attr['DstT']?.type);
    }
    const isConst = node?.op === 'Const';
    return (
      node !== undefined && (isConst ? this.weights.dtype(node.name) !== 'float32' : opsOfNoFloats.includes(node.op))
    );
  }

  /** The value of a constant that has one. */
  scalar(tensor: string | undefined): number | undefined {
    return this.constantUpTo(1, tensor)?.[0];
  }

  /** The values of a constant that is a shape, a permutation or the bounds of a slice. */
  vector(tensor: string | undefined): number[] | undefined {
    return this.constantUpTo(longestVector, tensor);
  }

  /** Large constants are not read: many nodes may ask for the same. */
  private constantUpTo(most: number, tensor: string | undefined): number[] | undefined {
    const node = this.source(tensor);
    const size = node?.op === 'Const' ? this.weights.size(node.name) : undefined;
    return size === undefined || size < 1 || size > most ? undefined : Array.from(this.constant(tensor)?.values ?? []);
  }
}

const isOrder = (axes: number[]): boolean => axes.every((_, axis) => axes.includes(axis));

function checkNode(op: string, node: unknown, i: number): GraphNodeDef {
  const {name, op: nodeOp, input, attr} = (node ?? {}) as Record<string, unknown>;
  const isNamed = typeof name === 'string' && typeof nodeOp === 'string';
  check(isNamed, op, 'modelArtifacts', `got node ${i} without a name or an op`, 'nodes with both');
  const inputs: unknown = input ?? [];
  const hasNames = Array.isArray(inputs) && inputs.every((tensor) => typeof tensor === 'string');
  check(hasNames, op, 'modelArtifacts', `got inputs of ${quoted(name as string)} that are no names`, 'a list of names');
  const isObject = attr === undefined || attr === null || (typeof attr === 'object' && !Array.isArray(attr));
  check(isObject, op, 'modelArtifacts', `got attributes of ${quoted(name as string)} that are none`, 'an object');
  return node as GraphNodeDef;
}
