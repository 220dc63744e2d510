import type {GraphNodeDef} from './graph_def.js';
import type {GraphView} from './graph_view.js';

/**
 * A value that a node has by the values of its inputs, found once for each node, without recursion: graphs are deep, and a chain of nodes
 * that each read the one before twice has more paths than anybody can walk.
 */
export class NodeValues<T> {
  private readonly known = new Map<string, T | undefined>();

  /**
   * @param inputsOf tensors whose values a node's follows from.
   * @param compute the value, if there is one, by those of these tensors.
   */
  constructor(
    private readonly graph: GraphView,
    private readonly inputsOf: (node: GraphNodeDef) => string[],
    private readonly compute: (
      node: GraphNodeDef,
      valueOf: (tensor: string | undefined) => T | undefined,
    ) => T | undefined,
  ) {}

  of(tensor: string | undefined): T | undefined {
    const valueOf = (of: string | undefined) => {
      const node = this.graph.source(of);
      return node && this.known.get(node.name);
    };
    const root = this.graph.source(tensor);
    const waiting = root ? [root] : [];
    for (let node = waiting.at(-1); node !== undefined; node = waiting.at(-1)) {
      const isKnown = this.known.has(node.name);
      const missing = isKnown ? [] : this.inputsOf(node).map((input) => this.graph.source(input));
      const first = missing.filter((input) => input !== undefined && !this.known.has(input.name));
      if (first.length > 0) {
        first.forEach((input) => waiting.push(input!));
        continue;
      }
      if (!isKnown) this.known.set(node.name, this.compute(node, valueOf));
      waiting.pop();
    }
    return valueOf(tensor);
  }
}
