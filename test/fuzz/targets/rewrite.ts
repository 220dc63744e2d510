import type {io, Tensor} from '@tensorflow/tfjs-core';
import {engine, io as tfio, randomNormal, setBackend} from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import {loadGraphModel} from '@tensorflow/tfjs-converter';
import type {RewrittenModel} from '../../../src/graph';
import {rewriteAttention} from '../../../src/graph';
import {attentionGraph, causalMasks, products, scales} from '../../graph/attention_graphs';
import type {GraphBuilder} from '../../graph/graph_builder';
import {Broken, bytesOf, jsonOf, type FuzzTarget} from '../fuzz_target';
import {mutateJson} from '../mutations';
import type {Random} from '../random';

/** A graph as JSON, and the shapes of what it is fed with. */
interface Case {
  nodes: unknown[];
  weights: {spec: io.WeightsManifestEntry; bytes: number[]}[];
  shapes: {query: number[]; key: number[]; value: number[]};
}

const OPS = [
  'Identity',
  'Mul',
  'AddV2',
  'Sub',
  'RealDiv',
  'Neg',
  'Softmax',
  'Cast',
  'Select',
  'Shape',
  'Maximum',
  'Sqrt',
];

/** Graphs with attention that were changed: with threshold 1 a rewritten graph gives what the graph gave. */
export async function rewrite(): Promise<FuzzTarget> {
  await setBackend('cpu');
  return {
    ending: 'json',
    make(random) {
      const product = random.pick(Object.values(products));
      const scale = random.pick(Object.values(scales));
      const mask = random.chance(0.8) ? random.pick(Object.values(causalMasks)) : undefined;
      const {nodes, weights} = attentionGraph(product, scale, mask);
      const given = {nodes, weights: weights.map(({spec, bytes}) => ({spec, bytes: [...new Uint8Array(bytes)]}))};
      for (let left = random.count(3); left > 0; --left) changeGraph(given as never, random);
      const changed = random.chance(0.15) ? {...given, nodes: mutateJson(given.nodes, random)} : given;
      return bytesOf(JSON.stringify({...changed, shapes: shapesFor(product.layout, random)}));
    },
    run: async (input) => {
      const given = jsonOf<Case>(input);
      const artifacts = artifactsOf(given);
      const rewritten = rewriteAttention(artifacts, {threshold: 1});
      const reasons = rewritten.left.map(({reason}) => reason.length);
      if (reasons.some((length) => length > 2000)) throw new Broken('a reason of more than 2,000 characters');
      if (rewritten.replaced.length === 0) return;
      const {numTensors} = engine().memory();
      await engine().setBackend('cpu');
      const before = await outputOf(artifacts, given.shapes);
      // What did not run, or gave no numbers, may give anything.
      if (before === undefined || !before.values.every(Number.isFinite)) return;
      const after = await outputOf(rewritten.modelArtifacts, given.shapes);
      if (after === undefined) throw new Broken('does not run any more');
      if (after.shape.join() !== before.shape.join())
        throw new Broken(`gives [${after.shape}], gave [${before.shape}]`);
      const at = before.values.findIndex((x, i) => !(Math.abs(x - after.values[i]) <= 1e-3 * (1 + Math.abs(x))));
      if (at !== -1 && !(await isNotComparable(rewritten, given.shapes)))
        throw new Broken(`gives ${after.values[at]} at ${at}, gave ${before.values[at]}`);
      if (engine().memory().numTensors > numTensors) throw new Broken('tensors are left behind');
    },
  };
}

/** Lengths that fit the masks, most of the time. */
function shapesFor(layout: string, random: Random): Case['shapes'] {
  const length = () => (random.chance(0.75) ? 24 : random.pick([1, 2, 12, 24]));
  const [batch, heads, queries, keys] = [random.pick([1, 1, 2]), random.pick([1, 2]), length(), length()];
  const shape = (n: number, dim = 8) => (layout === 'heads first' ? [batch, heads, n, dim] : [batch, n, heads, dim]);
  return {query: shape(queries), key: shape(keys), value: shape(keys, random.chance(0.9) ? 8 : 3)};
}

/** Changes that leave a graph which may still run: other inputs, ops, attributes, constants; nodes in between. */
function changeGraph({nodes, weights}: Pick<GraphBuilder, 'nodes'> & {weights: Case['weights']}, random: Random): void {
  const node = random.pick(nodes);
  const inputs = (node.input ??= []);
  switch (random.below(6)) {
    case 0:
      if (inputs.length > 0) inputs[random.below(inputs.length)] = random.pick(nodes).name!;
      break;
    case 1:
      inputs.reverse();
      break;
    case 2: {
      if (inputs.length === 0) break;
      const place = random.below(inputs.length);
      const op = random.pick(OPS);
      const other = random.chance(0.5) ? inputs[place] : random.pick(nodes).name!;
      const count = ['Mul', 'AddV2', 'Sub', 'RealDiv', 'Maximum'].includes(op) ? 2 : op === 'Select' ? 3 : 1;
      const name = `between_${nodes.length}`;
      const input = [inputs[place], other, other].slice(0, count);
      nodes.push({
        name,
        op,
        input,
        attr: {SrcT: {type: 'DT_FLOAT'}, DstT: {type: random.pick(['DT_FLOAT', 'DT_INT32', 'DT_BOOL'])}} as never,
      });
      inputs[place] = name;
      break;
    }
    case 3:
      if (OPS.includes(node.op!)) node.op = random.pick(OPS);
      break;
    case 4:
      node.attr = mutateJson(node.attr ?? {}, random) as never;
      break;
    default: {
      const weight = random.pick(weights);
      if (!weight) break;
      const size = weight.bytes.length / (weight.spec.dtype === 'bool' || weight.spec.quantization ? 1 : 4);
      if (weight.spec.dtype === 'int32' && size > 0) {
        const bytes = new Uint8Array(Int32Array.of(random.pick([-1, 0, 1, 2, 3, 12, 24])).buffer);
        weight.bytes.splice(4 * random.below(size), 4, ...bytes);
      } else if (weight.spec.dtype === 'float32' && !weight.spec.quantization && size > 0) {
        const value = random.pick(size > 1 ? [0, -0.5, 1, -30, -1e4, -1e8, -1e9, 1e9] : [0, -0.5, 1, 3, -30, 100]);
        const bytes = [...new Uint8Array(Float32Array.of(value).buffer)];
        if (random.chance(0.5)) weight.bytes = Array.from({length: size}, () => bytes).flat();
        else weight.bytes.splice(4 * random.below(size), 4, ...bytes);
      }
    }
  }
}

function artifactsOf({nodes, weights}: Case): io.ModelArtifacts {
  return {
    format: 'graph-model',
    modelTopology: {node: nodes, versions: {producer: 1882, minConsumer: 12}},
    signature: {outputs: {output: {name: 'Identity:0'}}} as never,
    weightSpecs: weights.map(({spec}) => spec),
    weightData: tfio.concatenateArrayBuffers(weights.map(({bytes}) => Uint8Array.from(bytes).buffer)),
  };
}

/**
 * Whether some scores may be as large as what masks lower others by, which no rewriting promises anything of; or fewer heads of keys are
 * broadcast over those of queries in a batch of several, where tfjs's matMul multiplies keys of other entries than TensorFlow's and ours.
 */
async function isNotComparable({modelArtifacts, replaced}: RewrittenModel, shapes: Case['shapes']): Promise<boolean> {
  const {node: nodes} = modelArtifacts.modelTopology as {node: {name: string; input: string[]}[]};
  for (const {node: name, scale} of replaced) {
    const [query, key] = nodes.find((node) => node.name === name)!.input;
    const q = await outputOf(modelArtifacts, shapes, query);
    const k = await outputOf(modelArtifacts, shapes, key);
    if (q && k && q.shape[0] > 1 && q.shape[1] !== k.shape[1]) return true;
    const [ofQuery, ofKey] = [q, k].map((factor) => Math.max(...(factor?.values ?? []).map(Math.abs)));
    if (!(Math.abs(scale) * ofQuery * ofKey * Math.max(...(q?.shape ?? [])) < 1e6)) return true;
  }
  return false;
}

/** What a graph gives, or a tensor in it; nothing where it does not run. */
async function outputOf(
  artifacts: io.ModelArtifacts,
  {query, key, value}: Case['shapes'],
  tensor?: string,
): Promise<{shape: number[]; values: number[]} | undefined> {
  const scope = engine();
  scope.startScope();
  try {
    const feeds = Object.fromEntries(
      Object.entries({query, key, value}).map(([name, shape], i) => [
        name,
        randomNormal(shape, 0, 2, 'float32', i + 1),
      ]),
    );
    const model = await loadGraphModel(tfio.fromMemory(artifacts));
    try {
      const output = model.execute(feeds, tensor) as Tensor;
      return {shape: output.shape, values: Array.from(output.dataSync())};
    } finally {
      model.dispose();
    }
  } catch {
    return undefined;
  } finally {
    scope.endScope();
  }
}
