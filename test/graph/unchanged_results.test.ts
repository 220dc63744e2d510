import type {Tensor} from '@tensorflow/tfjs-core';
import {cast, randomNormal, setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {rewriteAttention} from '../../src/graph';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {attentionGraph, products} from './attention_graphs';
import {compareRewritten} from './compare_rewritten';
import {causalMask, GraphBuilder} from './graph_builder';

const withScores = (make: (g: GraphBuilder, scores: string) => string) =>
  attentionGraph(products['BatchMatMulV2, adj_y'], undefined, make);
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
