import type {Tensor} from '@tensorflow/tfjs-core';
import {io, ones, randomNormal, setBackend, tensor1d, zeros} from '@tensorflow/tfjs-core';
import {loadGraphModel} from '@tensorflow/tfjs-converter';
import {expect} from 'chai';
import {rewriteAttention} from '../../src/graph';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {attentionGraph, causalMasks, headDim, length, products, scales} from './attention_graphs';
import {compareRewritten} from './compare_rewritten';
import {causalMask, GraphBuilder} from './graph_builder';

/* Masks that are not known to be causal stay in the graph, and the node adds them to its scores. */

const product = products['BatchMatMulV2, adj_y'];
const masked = (mask: (g: GraphBuilder, scores: string) => string) => attentionGraph(product, undefined, mask);
const added = (values: ArrayLike<number>, shape = [length, length]) =>
  masked((g, scores) => g.node('AddV2', 'masked', [scores, g.constant('mask', shape, values)]));
const attention = (heads = 2) => {
  const random = (seed: number) => randomNormal([2, heads, length, headDim], 0, 2, 'float32', seed);
  return {query: random(1), key: random(2), value: random(3)};
};

/** `(1 - mask) * -1e9`, of a mask over keys that is 1 where a key is seen, as BERT and Keras make it. */
const padding = (g: GraphBuilder, scores: string) => {
  const seen = g.node('Reshape', 'seen', [g.placeholder('padding', [-1]), g.int('seen/shape', 1, 1, 1, length)]);
  const hidden = g.node('Sub', 'hidden', [g.scalar('one', 1), seen]);
  return g.node('AddV2', 'padded', [scores, g.node('Mul', 'padding/mask', [hidden, g.scalar('large', -1e9)])]);
};

describeBackends('rewriteAttention, masks that are kept', (backend) => {
  before(() => setBackend(backend));

  it('a padding mask that is an input, alone and beside a causal mask', async () => {
    const seen = tensor1d(Array.from({length}, (_, i) => Number(i < 15)));
    for (const causal of [false, true]) {
      const g = masked((graph, scores) =>
        padding(graph, causal ? causalMasks['a constant of -1e9'](graph, scores) : scores),
      );
      const {replaced} = await compareRewritten(g.artifacts('Identity'), {...attention(), padding: seen});
      expect(replaced.map(({causal, masks}) => ({causal, masks}))).to.deep.equal([{causal, masks: ['padding/mask']}]);
    }
  });
});

describeOnCPU('rewriteAttention, masks that are kept, forms', () => {
  const cases: Record<string, GraphBuilder> = {
    'a band': added(causalMask(length, -1e9).map((x, i) => (Math.floor(i / length) - (i % length) > 4 ? -1e9 : x))),
    'a causal mask but for one value': added(causalMask(length, -1e9).map((x, i) => (i === length + 2 ? 0 : x))),
    // Its first row sees nothing.
    'a mask without the diagonal': added(causalMask(length, -1e9).map((x, i) => (i % (length + 1) === 0 ? -1e9 : x))),
    'a mask of earlier keys': added(causalMask(length, 0, -1e9)),
    'a causal mask of -1e4': added(causalMask(length, -1e4)),
    'a mask for each head': added(
      [...causalMask(length, -1e9), ...new Float32Array(length * length)],
      [1, 2, length, length],
    ),
    'a bias that is subtracted, and a mask': masked((g, scores) => {
      const values = Float32Array.from({length: 2 * length * length}, (_, i) => Math.sin(i));
      const biased = g.node('Sub', 'biased', [scores, g.constant('bias', [2, length, length], values)]);
      return g.node('AddV2', 'masked', [biased, g.constant('mask', [length, length], causalMask(length, 0, -1e9))]);
    }),
    'one row of a causal mask, broadcast': masked((g, scores) => {
      const all = g.constant('all', [1, 1, length, length], causalMask(length, -1e9));
      const ends = [g.int('from', 0, 0, 0, 0), g.int('to', 1, 1, 1, length), g.int('by', 1, 1, 1, 1)];
      return g.node('AddV2', 'masked', [scores, g.node('StridedSlice', 'row', [all, ...ends])]);
    }),
    'a selection of what is not causal': masked((g, scores) => {
      const odd = Array.from({length: length * length}, (_, i) => Number(i % 3 === 0));
      const seen = g.node('SelectV2', 'once', [
        g.constant('visible', [length, length], odd, 'bool'),
        scores,
        g.scalar('low', -3.4e38),
      ]);
      const hidden = g.constant('hidden', [length, length], causalMask(length, 1), 'bool');
      return g.node('SelectV2', 'masked', [g.node('LogicalNot', 'not', [hidden]), g.scalar('lowest', -1e9), seen]);
    }),
    // tfjs 4.22 runs it without its upper bound, so that nothing is hidden; that stays, too.
    'a mask of MatrixBandPart': masked((g, scores) => {
      const all = g.constant('ones', [length, length], new Float32Array(length * length).fill(1));
      const band = g.node('MatrixBandPart', 'band', [
        all,
        g.scalar('lower', -1, 'int32'),
        g.scalar('upper', 0, 'int32'),
      ]);
      const hidden = g.node('Sub', 'hidden', [g.scalar('one', 1), band]);
      return g.node('AddV2', 'masked', [scores, g.node('Mul', 'mask', [hidden, g.scalar('large', -1e9)])]);
    }),
    'a mask of bools, which tfjs adds as numbers': masked((g, scores) =>
      g.node('AddV2', 'masked', [scores, g.constant('bools', [length, length], causalMask(length, 0, 1), 'bool')]),
    ),
    'a mask of bools that is subtracted': masked((g, scores) =>
      g.node('Sub', 'masked', [scores, g.constant('bools', [length, length], causalMask(length, 0, 1), 'bool')]),
    ),
  };
  for (const [name, g] of Object.entries(cases)) {
    it(name, async () => {
      const {replaced} = await compareRewritten(g.artifacts('Identity'), attention());
      expect(replaced[0].causal).to.equal(false);
      expect(replaced[0].masks).to.have.length.within(1, 2);
    });
  }

  it('a mask that would broadcast the scores, and scores of other ranks', async () => {
    const shapes = [
      {of: [1, 2, length, headDim], mask: [3, 1, length, length]},
      {of: [2, length, headDim], mask: [2, 1, length]},
      {of: [2, length, headDim], mask: [1, 2, length, length]},
      {of: [2, 3, 1, length, headDim], mask: [2, 1, 1, length, 1]},
      {of: [2, 3, 1, length, headDim], mask: [2, 3, 1, 1, length]},
    ];
    for (const {of, mask} of shapes) {
      const g = new GraphBuilder();
      for (const name of ['query', 'key', 'value']) g.placeholder(name, of);
      const scores = product.scores(g);
      const sum = g.node('AddV2', 'masked', [scores, g.placeholder('mask', mask)]);
      g.node('Identity', 'Identity', [product.output(g, g.node('Softmax', 'softmax', [sum]))]);
      const random = (shape: number[], seed: number) => randomNormal(shape, 0, 1, 'float32', seed);
      const feeds = {query: random(of, 1), key: random(of, 2), value: random(of, 3), mask: random(mask, 4)};
      const {replaced} = await compareRewritten(g.artifacts('Identity'), feeds);
      expect(replaced).to.have.length(1);
    }
  });

  it('left: a mask under a scale, one that is a product, and one that is made from the scores', () => {
    const underScale = attentionGraph(product, (g, scores) =>
      scales['Mul'](g, g.node('AddV2', 'masked', [scores, g.placeholder('mask', [-1])])),
    );
    const ofProduct = masked((g, scores) =>
      g.node('AddV2', 'masked', [scores, g.node('BatchMatMulV2', 'relative', ['query', 'value'], {adj_y: {b: true}})]),
    );
    const ofScores = masked((g, scores) =>
      g.node('AddV2', 'masked', [scores, g.node('ZerosLike', 'like', [g.node('Relu', 'relu', [scores])])]),
    );
    const reasons = [underScale, ofProduct, ofScores].map(
      (g) => rewriteAttention(g.artifacts('Identity')).left[0]?.reason,
    );
    expect(reasons[0]).to.match(/^the mask in masked \(AddV2\) is not understood; takes masks of one size/);
    expect(reasons[1]).to.match(/^the mask in masked \(AddV2\) is not understood/);
    expect(reasons[2]).to.match(/is read by|are made from its scores$/);
  });

  it('a row that a mask of -Infinity hides throughout is zeros', async () => {
    const values = new Float32Array(length * length).fill(0);
    values.fill(-Infinity, 0, length);
    const {modelArtifacts} = rewriteAttention(added(values).artifacts('Identity'));
    const model = await loadGraphModel(io.fromMemory(modelArtifacts));
    const shape = [1, 1, length, headDim];
    const output = model.execute({query: zeros(shape), key: zeros(shape), value: ones(shape)});
    const rows = await (output as Tensor).data();
    expect([rows[0], rows[headDim]]).to.deep.equal([0, 1]);
  });
});
