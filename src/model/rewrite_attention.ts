import type {io} from '@tensorflow/tfjs-core';
import {check, pbsAttentionSettings, refuseForm} from '../ops/check_arguments.js';
import type {PBSAttentionSettings} from '../ops/options.js';
import type {AttentionPattern, MaskLength} from './attention_pattern.js';
import {attentionPattern} from './attention_pattern.js';
import type {GraphDefJSON, GraphNodeDef} from './graph_def.js';
import {nodeName} from './graph_def.js';
import {GraphView} from './graph_view.js';
import {ModelWeights} from './model_weights.js';
import {maskSizeAttribute, nodeAttributes, nodeOp, registerPBSAttentionOp} from './pbs_attention_node.js';
import type {Operand} from './products.js';
import {NotRecognised} from './products.js';

const op = 'rewriteAttention';

/** Options of `pbsAttention` but `causal` and `scale`, which the graph tells. */
export type RewriteAttentionOptions = Omit<PBSAttentionSettings, 'causal' | 'scale' | 'window' | 'softCap'>;

/** Attention that is a `PBSAttention` node now. */
export interface AttentionReplaced {
  /** Name of the softmax that it was found by. */
  softmax: string;
  /** Name of the new node. */
  node: string;
  /** Whether the graph masked later keys. */
  causal: boolean;
  /** Constant factor on the products of queries and keys; other factors are on the queries. */
  scale: number;
}

/** A softmax that was left as it is. */
export interface AttentionLeft {
  /** Its name; with the function's in front, inside a function. */
  softmax: string;
  /** What of it was not recognised. */
  reason: string;
}

/** What {@link rewriteAttention} returns. */
export interface RewrittenModel {
  /** To load with `tf.loadGraphModel(tf.io.fromMemory(modelArtifacts))`, or to save. */
  modelArtifacts: io.ModelArtifacts;
  /** What was replaced, in the order of the graph. */
  replaced: AttentionReplaced[];
  /** Every other softmax, with the reason; also those that are no attention, such as a classifier's. */
  left: AttentionLeft[];
}

/**
 * Replaces attention in a graph model by the node `PBSAttention`: product of queries and keys, scale, causal mask, softmax,
 * product with values, in the forms that the TensorFlow converter and hand-written models emit (BatchMatMulV2, MatMul or
 * Einsum; Mul or RealDiv; a mask that is added, subtracted or selected; Transpose in between). With `threshold: 1` the
 * model's outputs are those from before.
 *
 * ```js
 * const artifacts = await tf.io.http(url).load();
 * const {modelArtifacts, replaced, left} = rewriteAttention(artifacts, {threshold: 0.9});
 * const model = await tf.loadGraphModel(tf.io.fromMemory(modelArtifacts));
 * ```
 *
 * A mask must be causal by its constant values, or by the nodes that make it, and lower later keys by 1e8 at least: large scores
 * outweigh the -1e4 of some float16 models. Any other attention, and anything that other nodes read, that is in a loop of the graph or
 * that is not fully recognised, is left as it is, with the reason. Nodes that nothing needs any more go,
 * with their weights, so that `model.execute` cannot ask for them by name. Where query and key turn out to have other
 * lengths than each other or the mask, or values another head dim, the new node computes as the old ones did. The given artifacts are not changed.
 *
 * Reads constants, so a backend must be ready (`await tf.ready()`). Registers the node, as {@link registerPBSAttentionOp}
 * does; a page that loads a saved result calls that itself.
 *
 * @param modelArtifacts a graph model's, with its weights in memory.
 * @param options see {@link RewriteAttentionOptions}: `threshold = 0.9`, `blockSize = 128`, `segmentSize = 256`, …
 * @throws Error if the artifacts are no graph model's, or lack weights, or nodes have no names of their own; if an option is not one that `pbsAttention`
 *     takes.
 */
export function rewriteAttention(
  modelArtifacts: io.ModelArtifacts,
  options: RewriteAttentionOptions = {},
): RewrittenModel {
  refuseForm(op, options, 'the graph tells');
  const attrs = pbsAttentionSettings(op, options, 1);
  const topology = checkArtifacts(modelArtifacts);
  const weights = new ModelWeights(
    op,
    modelArtifacts.weightSpecs ?? [],
    modelArtifacts.weightData ?? new ArrayBuffer(0),
  );
  const graph = new GraphView(op, topology, outputsOf(modelArtifacts), weights);

  const replaced: AttentionReplaced[] = [];
  const left: AttentionLeft[] = leftInFunctions(topology);
  const changes = new GraphChanges(graph);
  for (const softmax of [...graph.nodes.values()].filter((node) => node.op === 'Softmax')) {
    try {
      const pattern = attentionPattern(graph, softmax);
      const {causal, scale} = pattern;
      const node = changes.replace(pattern, nodeAttributes({...attrs, causal, scale}));
      replaced.push({softmax: softmax.name, node, causal, scale});
    } catch (error) {
      if (!(error instanceof NotRecognised)) {
        throw error;
      }
      left.push({softmax: softmax.name, reason: error.message});
    }
  }
  if (replaced.length === 0) {
    return {modelArtifacts, replaced, left};
  }
  registerPBSAttentionOp();
  const dropped = changes.dropUnread();
  // The nodes of functions have names of their own, but weights are one table for all.
  for (const {nodeDef} of functionsOf(topology.library)) {
    nodeDef.forEach(({name}) => dropped.delete(name!));
  }
  const {specs, data} = weights.changed(dropped, changes.constants);
  return {
    modelArtifacts: {
      ...modelArtifacts,
      modelTopology: {...topology, node: [...changes.nodes.values()]},
      weightSpecs: specs,
      weightData: data,
    },
    replaced,
    left,
  };
}

function checkArtifacts({modelTopology, weightSpecs, weightData}: io.ModelArtifacts): GraphDefJSON {
  const topology = modelTopology as GraphDefJSON | undefined;
  const isGraph = Array.isArray(topology?.node);
  const got = topology && 'model_config' in topology ? 'got a layers model' : 'got a modelTopology without nodes';
  check(isGraph, op, 'modelArtifacts', got, 'a graph model in JSON; usePBSAttention takes layers models');
  const hasWeights = weightData !== undefined || !weightSpecs?.length;
  check(hasWeights, op, 'modelArtifacts', 'got no weightData', 'weights in memory, not streamed');
  return topology as GraphDefJSON;
}

/** Names of the output tensors, as tfjs reads them from the signature. */
function outputsOf({signature, userDefinedMetadata}: io.ModelArtifacts): string[] {
  type Signature = {outputs?: Record<string, {name?: unknown} | null>};
  const {outputs = {}} = ((userDefinedMetadata as {signature?: Signature} | undefined)?.signature ??
    signature ??
    {}) as Signature;
  return Object.values(outputs ?? {}).flatMap((output) => (typeof output?.name === 'string' ? output.name : []));
}

/** The functions of a graph that have nodes. */
function functionsOf(library: GraphDefJSON['library']) {
  const functions = Array.isArray(library?.function) ? library.function : [];
  return functions.flatMap((definition) => {
    const nodeDef = Array.isArray(definition?.nodeDef) ? definition.nodeDef.filter((node) => node) : [];
    return nodeDef.length > 0 ? [{signature: definition.signature, nodeDef}] : [];
  });
}

function leftInFunctions({library}: GraphDefJSON): AttentionLeft[] {
  return functionsOf(library).flatMap(({signature, nodeDef}) =>
    nodeDef
      .filter((node) => node.op === 'Softmax')
      .map(({name}) => ({softmax: `${signature?.name}/${name}`, reason: 'it is inside a function'})),
  );
}

/** A graph's nodes as they are being changed; the graph itself stays. */
class GraphChanges {
  /** Constants to add: int32 vectors. */
  readonly constants = new Map<string, number[]>();
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
    const {maskSize = []} = pattern;
    const sizeAttribute = maskSize.map((length) => this.maskLength(length, input)).join(' ');
    for (const inner of [...pattern.inner, last.name]) {
      this.orphanInputs(this.nodes.get(inner)!);
      this.nodes.delete(inner);
    }
    const attrs = {...attr, ...(sizeAttribute !== '' && maskSizeAttribute(sizeAttribute))};
    this.nodes.set(name, {name, op: nodeOp, input, attr: attrs});
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
