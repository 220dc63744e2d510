import type {io} from '@tensorflow/tfjs-core';
import {check, describe, pbsAttentionSettings, refuseForm} from '../ops/check_arguments.js';
import type {PBSAttentionSettings} from '../ops/options.js';
import {attentionPattern} from './attention_pattern.js';
import {GraphChanges} from './graph_changes.js';
import type {GraphDefJSON} from './graph_def.js';
import {GraphView} from './graph_view.js';
import {ModelWeights} from './model_weights.js';
import {nodeAttributes, registerPBSAttentionOp} from './pbs_attention_node.js';
import {NotRecognised} from './products.js';

const op = 'rewriteAttention';

/** Options of `pbsAttention` but those of the form, which the graph tells. */
export interface RewriteAttentionOptions extends Omit<PBSAttentionSettings, 'causal' | 'scale' | 'window' | 'softCap'> {
  /**
   * What a mask must lower later keys by, at least, to count as causal. A number below 0. Default -1e8, beside which no scores count. GPT-2
   * as Hugging Face transformers writes it for TensorFlow masks by -1e4: with `hiddenBelow: -1e4` it is rewritten, which is right as long as
   * scaled scores stay above some -9,900.
   */
  hiddenBelow?: number;
}

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
  /**
   * Masks of the graph that are added to the scores as they are, such as padding that is an input: names of their tensors.
   */
  masks: string[];
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
 * Einsum, also of transposed factors; Mul or RealDiv; a mask that is added, subtracted or selected; Transpose in between). With
 * `threshold: 1` the model's outputs are those from before.
 *
 * ```js
 * const artifacts = await tf.io.http(url).load();
 * const {modelArtifacts, replaced, left} = rewriteAttention(artifacts, {threshold: 0.9});
 * const model = await tf.loadGraphModel(tf.io.fromMemory(modelArtifacts));
 * ```
 *
 * A mask that is causal by its constant values, or by the nodes that make it, and lowers later keys by 1e8 at least (`hiddenBelow`) becomes
 * the option `causal`. Any other that is added, or selected by a condition, such as a padding mask that is an input of the model, stays in the
 * graph: such attention is `pbsAttention` with a mask. Anything that other nodes read, that is in a loop of the
 * graph or that is not fully recognised, is left as it is, with the reason. Nodes that nothing needs any more go,
 * with their weights, so that `model.execute` cannot ask for them by name. Where shapes turn out to be none that `pbsAttention` takes, or
 * other than the mask's, the new node computes as the old ones did. A row of which a mask of -Infinity hides every key is zeros, and no longer
 * NaN. The given artifacts are not changed.
 *
 * Reads constants, so a backend must be ready (`await tf.ready()`). Registers the node, as {@link registerPBSAttentionOp}
 * does; a page that loads a saved result calls that itself.
 *
 * @param modelArtifacts a graph model's, with its weights in memory.
 * @param options see {@link RewriteAttentionOptions}: `hiddenBelow = -1e8`, `threshold = 0.9`, `blockSize = 128`, `segmentSize = 256`, …
 * @throws Error if the artifacts are no graph model's, or lack weights, or nodes have no names of their own; if an option is not one that `pbsAttention`
 *     takes.
 */
export function rewriteAttention(
  modelArtifacts: io.ModelArtifacts,
  options: RewriteAttentionOptions = {},
): RewrittenModel {
  refuseForm(op, options, 'the graph tells');
  const {hiddenBelow = -1e8, ...settings} = options;
  check(hiddenBelow < 0, op, 'hiddenBelow', `got ${describe(hiddenBelow)}`, 'a number below 0');
  const attrs = pbsAttentionSettings(op, settings, 1);
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
      const pattern = attentionPattern(graph, softmax, hiddenBelow);
      const {causal, scale, masks} = pattern;
      const node = changes.replace(pattern, nodeAttributes({...attrs, causal, scale}));
      replaced.push({softmax: softmax.name, node, causal, scale, masks: masks.map(({tensor}) => tensor)});
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
