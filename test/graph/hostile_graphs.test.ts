import type {Tensor} from '@tensorflow/tfjs-core';
import {cast, randomNormal, setBackend, type io} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {rewriteAttention} from '../../src/graph';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {attentionGraph, causalMasks, products, scales} from './attention_graphs';
import {compareRewritten} from './compare_rewritten';
import {causalMask, GraphBuilder} from './graph_builder';

const product = products['BatchMatMulV2, adj_y'];
const plain = () => attentionGraph(product, undefined, causalMasks['a constant of -1e9']);

/** Adds attention over scores that are made in some way, or under some mask. */
const withScores = (make: (g: GraphBuilder, scores: string) => string) => attentionGraph(product, undefined, make);

/** Nodes of an op, each of which reads the one before. */
function chain(g: GraphBuilder, op: string, from: string, count: number, input: (before: string) => string[]): string {
  let last = from;
  for (let i = 0; i < count; ++i) last = g.node(op, `${op}_${i}`, input(last));
  return last;
}

/** For what takes a second at most in a graph of 200,000 nodes, on a machine fifty times slower; a square of that takes minutes on any. */
const timeLimit = 50_000;

/** The reason why the softmax is left; fails if it takes long. */
function reasonOf(g: GraphBuilder): string {
  const artifacts = g.artifacts('Identity');
  const start = performance.now();
  const {modelArtifacts, replaced, left} = rewriteAttention(artifacts);
  expect(performance.now() - start).to.be.below(timeLimit);
  expect(replaced).to.deep.equal([]);
  expect(modelArtifacts).to.equal(artifacts);
  const {reason} = left.find(({softmax}) => softmax === 'softmax')!;
  expect(reason.length).to.be.below(600);
  return reason;
}

describeOnCPU('rewriteAttention, hostile graphs', () => {
  it('leaves scores from a ring of Identity nodes', () => {
    const g = withScores((graph) => graph.node('Identity', 'a', ['b']));
    g.node('Identity', 'b', ['a']);
    expect(reasonOf(g)).to.equal('a (Identity) is made of its own result: it is in a loop of the graph');
  });

  it('leaves a mask and a scale from a ring of Identity nodes', () => {
    for (const op of ['AddV2', 'Mul']) {
      const g = withScores((graph, scores) => graph.node(op, 'masked', [scores, 'a']));
      g.node('Identity', 'a', ['b']);
      g.node('Identity', 'b', ['a']);
      expect(reasonOf(g)).to.match(
        /^the (mask in masked \(AddV2\) is not understood|scale is not one number in masked)/,
      );
    }
  });

  it('leaves weights that go into a ring', () => {
    const g = plain();
    g.node('Identity', 'a', ['softmax', 'b']);
    g.node('Identity', 'b', ['a']);
    g.nodes.find(({name}) => name === 'attended')!.input = ['b', 'value'];
    expect(reasonOf(g)).to.match(/^a \(Identity\) is made of its own result/);
  });

  it('leaves a product that reads itself', () => {
    const g = withScores((graph) => graph.node('Mul', 'again', ['again', graph.scalar('one', 1)]));
    expect(reasonOf(g)).to.equal('again (Mul) is made of its own result: it is in a loop of the graph');
  });

  it('leaves attention that is in a loop of the graph', () => {
    const g = plain();
    g.nodes.find(({name}) => name === 'scores')!.input = ['merged', 'key'];
    g.node('Merge', 'merged', ['query', 'next']);
    g.node('NextIteration', 'next', ['attended']);
    expect(reasonOf(g)).to.equal('softmax (Softmax) is made of its own result: it is in a loop of the graph');
  });

  it('takes a scale from a chain of products that each read the one before twice', () => {
    for (const count of [24, 5000]) {
      const g = attentionGraph(product, (graph, scores) => {
        const size = scales['RealDiv by the root of a Shape'](graph, scores);
        graph.nodes.find(({name}) => name === size)!.input![1] = chain(graph, 'Mul', 'root', count, (x) => [x, x]);
        return size;
      });
      const start = performance.now();
      expect(rewriteAttention(g.artifacts('Identity')).replaced).to.have.length(1);
      expect(performance.now() - start).to.be.below(timeLimit);
    }
  });

  it('walks a mask of 100,000 nodes, in depth and where each is read twice', () => {
    const g = withScores((graph, scores) => {
      const mask = graph.constant('mask', [24, 24], causalMask(24, -1e9));
      return graph.node('AddV2', 'masked', [scores, chain(graph, 'AddV2', mask, 100_000, (x) => [x, x])]);
    });
    // Doubled so often, it is infinite, and 0 where keys are seen.
    const start = performance.now();
    expect(rewriteAttention(g.artifacts('Identity')).replaced).to.have.length(1);
    expect(performance.now() - start).to.be.below(timeLimit);
  });

  it('leaves scores that come through 100,000 nodes', () => {
    const g = withScores((graph, scores) => {
      const one = graph.scalar('one', 1);
      return chain(graph, 'Mul', scores, 100_000, (x) => [x, one]);
    });
    expect(reasonOf(g)).to.equal('more than 64 nodes lie between its scores and Mul_99999');
  });

  it('walks a chain of 100,000 Identity nodes once, however many read it', () => {
    const g = withScores((graph, scores) => {
      const end = chain(graph, 'Identity', 'query', 100_000, (x) => [x]);
      for (let i = 0; i < 20_000; ++i) {
        graph.node('Softmax', `softmax_${i}`, [graph.node('AddV2', `sum_${i}`, [end, end])]);
        graph.node('BatchMatMulV2', `product_${i}`, [`softmax_${i}`, 'value']);
      }
      return graph.node('Tanh', 'bent', [scores]);
    });
    expect(reasonOf(g)).to.match(/^its scores come from bent \(Tanh\)/);
  });

  it('leaves what too many nodes read, and says so in few words', () => {
    const g = plain();
    for (let i = 0; i < 200_000; ++i) g.node('Relu', `reader_${i}`, ['scores']);
    expect(reasonOf(g)).to.equal(
      'scores is read by scaled, reader_0, reader_1, reader_2 and 199997 others, not by attention alone',
    );
    const long = withScores((graph, scores) => graph.node('Tanh', 'x'.repeat(1e6), [scores]));
    expect(reasonOf(long)).to.match(/^its scores come from x+…$/);
  });

  it('takes a node with 200,000 inputs for what it is', () => {
    const g = withScores((graph, scores) =>
      graph.node('AddV2', 'masked', [scores, graph.node('AddV2', 'many', Array<string>(200_000).fill('query'))]),
    );
    const start = performance.now();
    expect(rewriteAttention(g.artifacts('Identity')).replaced[0].masks).to.deep.equal(['many']);
    expect(performance.now() - start).to.be.below(timeLimit);
  });

  it('leaves nodes with inputs too few or too many, and attributes that are none', () => {
    const changed = (name: string, change: object) => {
      const g = plain();
      Object.assign(
        g.nodes.find((node) => node.name === name)!,
        change,
      );
      return reasonOf(g);
    };
    expect(changed('softmax', {input: []})).to.match(/^its scores come from nothing, which is not the first output/);
    expect(changed('scores', {input: ['query']})).to.equal('scores (BatchMatMulV2) has 1 inputs instead of 2');
    expect(changed('scaled', {input: ['scores']})).to.equal('scaled (Mul) has 1 inputs instead of 2');
    expect(changed('masked', {input: ['mask', 'scaled', 'mask']})).to.equal('masked (AddV2) has 3 inputs instead of 2');
    expect(changed('attended', {input: ['softmax']})).to.equal('attended (BatchMatMulV2) has 1 inputs instead of 2');
    const einsum = {op: 'Einsum', attr: {equation: {s: '%%%'}}};
    expect(changed('scores', einsum)).to.match(/^the einsum '%%%' is not one of two factors/);
    expect(changed('scaled', {op: 'constructor'})).to.match(/^its scores come from scaled \(constructor\)/);
    const methodOp = withScores((graph, scores) =>
      graph.node('AddV2', 'masked', [scores, graph.node('toString', 'odd', ['query'])]),
    );
    expect(rewriteAttention(methodOp.artifacts('Identity')).replaced[0].masks).to.deep.equal(['odd']);
  });

  it('leaves a graph with a Transpose by an order that lacks an axis, of which tfjs reads past the values', () => {
    const g = attentionGraph(products['BatchMatMulV2, heads moved by Transpose']);
    g.weights.find(({spec}) => spec.name === 'query_t/perm')!.bytes = Int32Array.of(0, 1, 1, 3).buffer;
    expect(reasonOf(g)).to.equal('query_t (Transpose) of the graph is by no order of all axes');
  });

  it('leaves values that are true and false, of which tfjs makes no floats in an einsum', () => {
    const values = (make: (g: GraphBuilder, visible: string) => string) => {
      const g = attentionGraph(products['Einsum'], undefined, causalMasks['SelectV2 by a constant']);
      g.nodes.find(({name}) => name === 'attended')!.input![1] = make(g, 'visible');
      return reasonOf(g);
    };
    expect(values((_, visible) => visible)).to.equal('visible, which is multiplied, is not of floats');
    const not = values((g, visible) => g.node('LogicalNot', 'not', [visible]));
    expect(not).to.equal('not, which is multiplied, is not of floats');
  });

  it('refuses weights that have no room in their bytes, and nodes that are none', () => {
    const withWeight = (spec: object) => {
      const g = plain();
      g.weight({name: 'words', shape: [2], dtype: 'string', ...spec} as io.WeightsManifestEntry, new ArrayBuffer(8));
      return () => rewriteAttention(g.artifacts('Identity'));
    };
    const noRoom =
      /^rewriteAttention: modelArtifacts: got \d+ bytes of weightData, in which "words" has no room; takes/;
    const start = performance.now();
    expect(withWeight({})).not.to.throw();
    for (const shape of [[1e12], [3], [2 ** 53 - 1, 2 ** 53 - 1]]) expect(withWeight({shape})).to.throw(noRoom);
    expect(withWeight({dtype: 'float32', shape: [3]})).to.throw(noRoom);
    expect(withWeight({shape: [-1]})).to.throw(/got weight "words" of a shape that is none; takes a list of lengths/);
    expect(withWeight({dtype: 'toString'})).to.throw(/got weight "words" of an unknown dtype/);
    expect(performance.now() - start).to.be.below(timeLimit);

    const withNode = (node: unknown) => {
      const artifacts = plain().artifacts('Identity');
      (artifacts.modelTopology as {node: unknown[]}).node.push(node);
      return () => rewriteAttention(artifacts);
    };
    expect(withNode(null)).to.throw(/got node \d+ without a name or an op; takes nodes with both/);
    expect(withNode({name: 'x', op: 'Relu', input: [1]})).to.throw(/got inputs of "x" that are no names/);
    expect(withNode({name: 'x', op: 'Relu', attr: 7})).to.throw(/got attributes of "x" that are none; takes an object/);
    expect(withNode({name: 'query', op: 'Relu'})).to.throw(/got two nodes named "query"; takes names of their own/);
  });
});

const length = 24;

/** Compares results before and after; whether the attention was replaced. */
const compare = async (g: GraphBuilder, feeds: Record<string, Tensor>) =>
  (await compareRewritten(g.artifacts('Identity'), feeds)).replaced.length;

const random = (shape: number[], size = 2) => randomNormal(shape, 0, size, 'float32', shape.length + shape[2]);
const inputs = (queries: number, keys: number, size?: number) => ({
  query: random([1, 2, queries, 8], size),
  key: random([1, 2, keys, 8], size),
  value: random([1, 2, keys, 8], size),
});

/** A number of the shape of a tensor. */
function lengthOf(g: GraphBuilder, tensor: string, axis: number): string {
  const shape = g.node('Shape', 'shape', [tensor]);
  const ends = [g.int('begin', axis), g.int('end', axis + 1), g.int('by', 1)];
  return g.node('StridedSlice', 'n', [shape, ...ends], {shrink_axis_mask: {i: '1'}});
}

/** Later keys are hidden by a comparison of two ranges, both as long as an axis of some tensor. */
const rangeMask = (tensor: string, axis: number) =>
  withScores((g, scores) => {
    const range = [g.scalar('zero', 0, 'int32'), lengthOf(g, tensor, axis), g.scalar('step', 1, 'int32')];
    const columns = g.node('Range', 'columns', range);
    const rows = g.node('ExpandDims', 'rows', [columns, g.scalar('axis', 1, 'int32')]);
    const visible = g.node('GreaterEqual', 'visible', [rows, columns]);
    return g.node('SelectV2', 'masked', [visible, scores, g.scalar('lowest', -1e9)]);
  });

/** The same by running counts of ones. */
const countMask = (tensor: string, axis: number) =>
  withScores((g, scores) => {
    const n = lengthOf(g, tensor, axis);
    const ones = g.node('Fill', 'ones', [
      g.node('Pack', 'dims', [g.scalar('first', 1, 'int32'), n, n]),
      g.scalar('one', 1, 'int32'),
    ]);
    const counts = (name: string, along: number) =>
      g.node('Cumsum', name, [ones, g.scalar(`${name}/axis`, along, 'int32')]);
    const visible = g.node('GreaterEqual', 'visible', [counts('rows', 1), counts('columns', 2)]);
    return g.node('SelectV2', 'masked', [visible, scores, g.scalar('lowest', -1e9)]);
  });

/** The beginning of a constant mask, up to a number of some shape. */
const slicedMask = (tensor: string, axis: number) =>
  withScores((g, scores) => {
    const n = lengthOf(g, tensor, axis);
    const all = g.constant('bias', [32, 32], causalMask(32, -1e9));
    const end = g.node('Pack', 'ends', [n, n]);
    const slice = g.node('StridedSlice', 'mask', [all, g.int('from', 0, 0), end, g.int('steps', 1, 1)]);
    return g.node('AddV2', 'masked', [scores, slice]);
  });

describeBackends('rewriteAttention, int32 tensors', (backend) => {
  before(() => setBackend(backend));
  // How the mask is made does not change how its length gets to the node, as an int32 tensor that the node reads.
  const masks = backend === 'cpu' ? {rangeMask, countMask, slicedMask} : {rangeMask};

  for (const [name, mask] of Object.entries(masks)) {
    it(`a mask as long as an axis that may be another: ${name}`, async () => {
      // The length of the keys, by a tensor that is not the scores, and by the scores.
      expect(await compare(mask('key', 2), inputs(length, length))).to.equal(1);
      expect(await compare(mask('scores', 3), inputs(length, length))).to.equal(1);
      // The batch: of 1, so that the mask is broadcast and hides nothing.
      expect(await compare(mask('query', 0), inputs(length, length))).to.equal(1);
      expect(await compare(mask('scores', 0), inputs(length, length))).to.equal(1);
      // Of one query, the mask makes as many rows as it has.
      expect(await compare(mask('key', 2), inputs(1, length))).to.equal(1);
      expect(await compare(mask('query', 2), inputs(1, length))).to.equal(1);
    });
  }

  it('query, key and value of whole numbers, which the node leaves to the ops that were there', async () => {
    const g = new GraphBuilder();
    const parts = ['query', 'key', 'value'];
    parts.forEach((name) => g.node('Placeholder', name, [], {dtype: {type: 'DT_INT32'}}));
    g.node('BatchMatMulV2', 'scores', ['query', 'key'], {adj_y: {b: true}});
    // Of whole numbers alone tfjs has no softmax.
    g.node('Mul', 'scaled', ['scores', g.scalar('scale', 0.3)]);
    g.node('Softmax', 'softmax', ['scaled']);
    g.node('Identity', 'Identity', [g.node('BatchMatMulV2', 'attended', ['softmax', 'value'])]);
    const floats = inputs(length, length);
    const wholes = Object.entries(floats).map(([name, x]) => [name, cast(x, 'int32')] as const);
    expect(await compare(g, Object.fromEntries(wholes))).to.equal(1);
  });
});

describeOnCPU('rewriteAttention, results that must stay', () => {
  it('a constant mask over one query', async () => {
    const g = withScores((graph, scores) =>
      graph.node('AddV2', 'masked', [scores, graph.constant('mask', [length, length], causalMask(length, -1e9))]),
    );
    expect(await compare(g, inputs(1, length))).to.equal(1);
  });

  it('masks of two sizes', async () => {
    const g = withScores((graph, scores) => {
      const mask = (n: number) => graph.constant(`mask_${n}`, [n, n], causalMask(n, -1e9));
      const one = graph.node('AddV2', 'once', [scores, mask(length)]);
      return graph.node('AddV2', 'masked', [one, mask(12)]);
    });
    expect(rewriteAttention(g.artifacts('Identity')).replaced).to.deep.equal([]);
  });

  it('-1e9 that is added everywhere, in which scores are lost', async () => {
    const everywhere = (values: Float32Array) =>
      withScores((g, scores) => g.node('AddV2', 'masked', [scores, g.constant('mask', [length, length], values)]));
    expect(await compare(everywhere(new Float32Array(length * length).fill(-1e9)), inputs(length, length))).to.equal(0);
    expect(await compare(everywhere(causalMask(length, -2e9, -1e9)), inputs(length, length))).to.equal(0);
    expect(await compare(everywhere(new Float32Array(length * length).fill(-8)), inputs(length, length))).to.equal(1);
  });

  it('a mask that is taken away before it is added, which leaves later keys seen', async () => {
    for (const times of [1, -1]) {
      const g = withScores((graph, scores) => {
        const mask = graph.constant('mask', [length, length], causalMask(length, -1e9));
        const [first, second] = times === 1 ? ['Sub', 'AddV2'] : ['AddV2', 'Sub'];
        return graph.node(second, 'masked', [graph.node(first, 'once', [scores, mask]), mask]);
      });
      expect(await compare(g, inputs(length, length))).to.equal(0);
    }
  });

  it('a mask of which a slice leaves nothing', () => {
    for (const [begin, end] of [
      [0, 0],
      [0, -1],
      [1, 2],
    ]) {
      const g = withScores((graph, scores) => {
        const all = graph.constant('bias', [1, 1, 32, 32], causalMask(32, -1e9));
        const ends = [graph.int('from', begin, 0, 0, 0), graph.int('to', end, 1, length, length)];
        return graph.node('AddV2', 'masked', [
          scores,
          graph.node('StridedSlice', 'mask', [all, ...ends, graph.int('steps', 1, 1, 1, 1)]),
        ]);
      });
      // It stays in the graph. What tfjs multiplies of no values cannot be compared.
      const {replaced} = rewriteAttention(g.artifacts('Identity'));
      expect(replaced.map(({causal}) => causal)).to.deep.equal([false]);
    }
  });

  it('a mask of -1e4 under scores that outweigh it', async () => {
    const g = withScores((graph, scores) =>
      graph.node('AddV2', 'masked', [scores, graph.constant('mask', [length, length], causalMask(length, -1e4))]),
    );
    expect(await compare(g, inputs(length, length, 100))).to.equal(1);
  });
});
