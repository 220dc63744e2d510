import type {AttentionPattern, MaskLength} from './attention_pattern.js';
import type {GraphNodeDef} from './graph_def.js';
import {nodeName} from './graph_def.js';
import type {GraphView} from './graph_view.js';
import {formAttributes, nodeOp} from './pbs_attention_node.js';
import type {Operand} from './products.js';
import type {AddedMask} from './score_reader.js';

/** A graph's nodes as they are being changed; the graph itself stays. */
export class GraphChanges {
  /** Constants to add: int32 vectors, and float32 numbers. */
  readonly constants = new Map<string, number[] | number>();
  readonly nodes: Map<string, GraphNodeDef>;
  private readonly orphans: string[] = [];

  constructor(private readonly graph: GraphView) {
    this.nodes = new Map(graph.nodes);
  }

  /** Puts a node in the place of a pattern. Returns its name. */
  replace(pattern: AttentionPattern, attr: GraphNodeDef['attr']): string {
    const {last, outputPerm} = pattern;
    const name = outputPerm ? this.freeName(`${last.name}/${nodeOp}`) : last.name;
    let query = this.operand(pattern.query, `${last.name}/query`);
    for (const {op, tensor} of pattern.queryFactors) {
      query = this.add(`${last.name}/scaled_query`, op, [query, tensor]);
    }
    const input = [
      query,
      this.operand(pattern.key, `${last.name}/key`),
      this.operand(pattern.value, `${last.name}/value`),
    ];
    const {maskSize = [], isFromEnd, isOutputTransposed: output} = pattern;
    const lengths = maskSize.map((length) => this.maskLength(length, input));
    const mask = this.mask(pattern.masks, `${last.name}/mask`);
    const form = formAttributes({
      maskSize: [...lengths, ...(isFromEnd ? ['end'] : [])].join(' '),
      mask: mask === undefined ? undefined : input.push(mask) - 1,
      transposed: {
        query: pattern.query.isTransposed,
        key: pattern.key.isTransposed,
        value: pattern.value.isTransposed,
        output,
      },
    });
    for (const inner of [...pattern.inner, last.name]) {
      this.orphanInputs(this.nodes.get(inner)!);
      this.nodes.delete(inner);
    }
    this.nodes.set(name, {name, op: nodeOp, input, attr: {...attr, ...form}});
    if (outputPerm) {
      this.nodes.set(last.name, this.transpose(last.name, name, outputPerm));
    }
    return name;
  }

  /** Drops what only the replaced nodes read, and so on upwards. Returns the names. */
  dropUnread(): Set<string> {
    const read = new Map<string, number>();
    const count = (node: GraphNodeDef, step: 1 | -1) =>
      node.input.map(nodeName).forEach((input) => read.set(input, (read.get(input) ?? 0) + step));
    this.nodes.forEach((node) => count(node, 1));
    const dropped = new Set<string>();
    for (let name = this.orphans.pop(); name !== undefined; name = this.orphans.pop()) {
      const node = this.nodes.get(name);
      const isNeeded = !node || read.get(name) || this.graph.outputs.has(name) || node.op.startsWith('Placeholder');
      if (node && !isNeeded) {
        this.nodes.delete(name);
        dropped.add(name);
        count(node, -1);
        this.orphanInputs(node);
      }
    }
    return dropped;
  }

  private orphanInputs({input}: GraphNodeDef): void {
    input.forEach((tensor) => this.orphans.push(nodeName(tensor)));
  }

  /** A length of a mask as the node's attribute has it; what only the graph knows becomes one of its inputs. */
  private maskLength(length: MaskLength, input: string[]): string {
    if (typeof length === 'number') {
      return `${length}`;
    }
    return 'axis' in length ? `axis:${length.axis}` : `input:${input.push(length.tensor) - 1}`;
  }

  /** Masks as one; none without any. A selection sets what it hides, whatever was added before. */
  private mask(masks: AddedMask[], name: string): string | undefined {
    let whole: string | undefined;
    for (const {kind, tensor, low} of [...masks].reverse()) {
      if (kind === 'visible' || kind === 'hidden') {
        const choices = [whole ?? this.number(`${name}/seen`, 0), this.number(`${name}/low`, low!)];
        whole = this.add(name, 'SelectV2', [tensor, ...(kind === 'visible' ? choices : choices.reverse())]);
      } else {
        // Of true tfjs makes a number by subtracting it, as the graph did, but not by Neg.
        const zero = () => this.number(`${name}/zero`, 0);
        const added = kind === 'added' ? tensor : this.add(`${name}/negative`, 'Sub', [zero(), tensor]);
        whole = whole === undefined ? added : this.add(`${name}/sum`, 'AddV2', [whole, added]);
      }
    }
    return whole;
  }

  private number(name: string, value: number): string {
    const constant = this.add(name, 'Const', [], {dtype: {type: 'DT_FLOAT' as never}});
    this.constants.set(constant, value);
    return constant;
  }

  private operand({tensor, perm}: Operand, name: string): string {
    if (!perm) {
      return tensor;
    }
    const free = this.freeName(name);
    this.nodes.set(free, this.transpose(free, tensor, perm));
    return free;
  }

  private transpose(name: string, tensor: string, perm: number[]): GraphNodeDef {
    const order = this.add(`${name}/perm`, 'Const', [], {dtype: {type: 'DT_INT32' as never}});
    this.constants.set(order, perm);
    return {name, op: 'Transpose', input: [tensor, order], attr: {}};
  }

  private add(name: string, op: string, input: string[], attr: GraphNodeDef['attr'] = {}): string {
    const free = this.freeName(name);
    this.nodes.set(free, {name: free, op, input, attr});
    return free;
  }

  private freeName(name: string): string {
    const isTaken = (candidate: string) => this.nodes.has(candidate) || this.graph.nodes.has(candidate);
    let free = name;
    for (let i = 1; isTaken(free); ++i) {
      free = `${name}_${i}`;
    }
    return free;
  }
}
