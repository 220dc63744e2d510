import type {GraphNodeDef} from './graph_def.js';
import {nodeName} from './graph_def.js';

/** Where a node is in the walk of `cyclicNodes`. */
interface Visit {
  node: GraphNodeDef;
  /** Order in which nodes were found. */
  index: number;
  /** The first found node that this one is made of, and that is made of it. */
  low: number;
  /** Inputs that were followed. */
  followed: number;
}

/**
 * Names of the nodes that are made of their own results: strongly connected components of more than one node, and nodes that read
 * themselves (Tarjan 1972), with lists instead of recursion, because graphs are deep.
 */
export function cyclicNodes(nodes: ReadonlyMap<string, GraphNodeDef>): Set<string> {
  const cyclic = new Set<string>();
  const visits = new Map<string, Visit>();
  const open: string[] = [];
  const isOpen = new Set<string>();
  const enter = (node: GraphNodeDef): Visit => {
    const visit = {node, index: visits.size, low: visits.size, followed: 0};
    visits.set(node.name, visit);
    open.push(node.name);
    isOpen.add(node.name);
    return visit;
  };
  for (const root of nodes.values()) {
    if (visits.has(root.name)) continue;
    const path = [enter(root)];
    for (let visit = path.at(-1); visit !== undefined; visit = path.at(-1)) {
      const {node} = visit;
      if (visit.followed < node.input.length) {
        const name = nodeName(node.input[visit.followed++]);
        const input = nodes.get(name);
        const found = visits.get(name);
        if (name === node.name) cyclic.add(name);
        if (input && !found) path.push(enter(input));
        else if (found && isOpen.has(name)) visit.low = Math.min(visit.low, found.index);
        continue;
      }
      path.pop();
      const reader = path.at(-1);
      if (reader) reader.low = Math.min(reader.low, visit.low);
      if (visit.low === visit.index) closeComponent(node.name, open, isOpen, cyclic);
    }
  }
  return cyclic;
}

function closeComponent(root: string, open: string[], isOpen: Set<string>, cyclic: Set<string>): void {
  const isAlone = open.at(-1) === root;
  for (let name = open.pop(); name !== undefined; name = name === root ? undefined : open.pop()) {
    isOpen.delete(name);
    if (!isAlone) cyclic.add(name);
  }
}
