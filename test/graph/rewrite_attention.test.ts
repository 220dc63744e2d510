import type {io, Tensor} from '@tensorflow/tfjs-core';
import {engine, io as tfio, memory, randomNormal, setBackend} from '@tensorflow/tfjs-core';
import type {GraphModel} from '@tensorflow/tfjs-converter';
import {deregisterOp, loadGraphModel} from '@tensorflow/tfjs-converter';
import {expect} from 'chai';
import {registerPBSAttentionOp, rewriteAttention} from '../../src/graph';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {attentionGraph, causalMasks, headDim, length, products, scales} from './attention_graphs';
import {causalMask, GraphBuilder} from './graph_builder';

const load = (artifacts: io.ModelArtifacts) => loadGraphModel(tfio.fromMemory(artifacts)) as Promise<GraphModel>;
const ops = (artifacts: io.ModelArtifacts) =>
  (artifacts.modelTopology as {node: Array<{op: string}>}).node.map(({op}) => op);

/** Query, key and value, with two heads; values spread, so that attention is uneven. */
function inputs(layout: 'heads first' | 'heads second', n = length): Record<string, Tensor> {
  const shape = layout === 'heads first' ? [1, 2, n, headDim] : [1, n, 2, headDim];
  const random = (seed: number) => randomNormal(shape, 0, 2, 'float32', seed);
  return {query: random(1), key: random(2), value: random(3)};
}

async function largestDifference(a: Tensor, b: Tensor): Promise<number> {
  expect(a.shape).to.deep.equal(b.shape);
  const [x, y] = [await a.data(), await b.data()];
  return Math.max(...Array.from(x, (value, i) => Math.abs(value - y[i])));
}

/** Runs a model before and after: the new node runs, and gives what the old ones gave. */
async function expectSame(artifacts: io.ModelArtifacts, feeds: Record<string, Tensor>, tolerance = 1e-4) {
  const before = (await load(artifacts)).execute(feeds) as Tensor;
  const rewritten = rewriteAttention(artifacts, {threshold: 1});
  expect(rewritten.left).to.deep.equal([]);
  expect(ops(rewritten.modelArtifacts)).to.include('PBSAttention').and.not.to.include('Softmax');
  const after = (await load(rewritten.modelArtifacts)).execute(feeds) as Tensor;
  expect(await largestDifference(after, before)).to.be.below(tolerance);
  return rewritten;
}

describeBackends('rewriteAttention', (backend) => {
  before(() => setBackend(backend));

  it('replaces masked attention by a node with the same result, in a graph that is loaded', async () => {
    const mask = causalMasks['a constant of -1e9'];
    const artifacts = attentionGraph(products['BatchMatMulV2 of transposed keys'], scales['RealDiv'], mask).artifacts(
      'Identity',
    );
    const {replaced} = await expectSame(artifacts, inputs('heads first'));
    expect(replaced).to.have.length(1);
  });
});

describeOnCPU('rewriteAttention, what it recognises', () => {
  for (const [name, product] of Object.entries(products)) {
    it(`products: ${name}`, async () => {
      for (const mask of [undefined, causalMasks['a constant of -1e9']]) {
        const artifacts = attentionGraph(product, undefined, mask).artifacts('Identity');
        const {replaced} = await expectSame(artifacts, inputs(product.layout));
        expect(replaced[0]).to.include({softmax: 'softmax', causal: mask !== undefined});
        expect(replaced[0].scale).to.be.closeTo(1 / Math.sqrt(headDim), 1e-7);
      }
    });
  }

  for (const [name, scale] of Object.entries(scales)) {
    it(`scales: ${name}`, async () => {
      const product = products['Einsum'];
      await expectSame(attentionGraph(product, scale).artifacts('Identity'), inputs(product.layout));
    });
  }

  for (const [name, mask] of Object.entries(causalMasks)) {
    it(`causal masks: ${name}`, async () => {
      const product = products['BatchMatMulV2, adj_y'];
      const artifacts = attentionGraph(product, undefined, mask).artifacts('Identity');
      const {replaced, modelArtifacts} = await expectSame(artifacts, inputs(product.layout));
      expect(replaced[0].causal).to.equal(true);
      // Nothing of the mask is left.
      expect(ops(modelArtifacts).sort()).to.deep.equal(
        ['Identity', 'PBSAttention', 'Placeholder', 'Placeholder', 'Placeholder'].sort(),
      );
      expect(modelArtifacts.weightSpecs).to.deep.equal([]);
    });
  }

  it('a mask under the scale, and a mask that hides nothing', async () => {
    const product = products['Einsum'];
    const last = (g: GraphBuilder, scores: string) => {
      const masked = g.node('AddV2', 'masked', [
        scores,
        g.constant('mask', [length, length], causalMask(length, -1e9)),
      ]);
      return g.node('Mul', 'scaled', [masked, g.scalar('scale', 0.5)]);
    };
    const {replaced} = await expectSame(attentionGraph(product, last).artifacts('Identity'), inputs(product.layout));
    expect(replaced[0]).to.include({causal: true, scale: 0.5});
    const none = (g: GraphBuilder, scores: string) =>
      g.node('AddV2', 'masked', [scores, g.constant('mask', [1, 1, 1, length], new Float32Array(length))]);
    const open = await expectSame(
      attentionGraph(product, undefined, none).artifacts('Identity'),
      inputs(product.layout),
    );
    expect(open.replaced[0].causal).to.equal(false);
  });

  it('attention of rank 2 and 3', async () => {
    for (const [op, shape] of [
      ['MatMul', [length, headDim]],
      ['BatchMatMulV2', [3, length, headDim]],
    ] as const) {
      const g = new GraphBuilder();
      ['query', 'key', 'value'].forEach((name) => g.placeholder(name, [...shape]));
      g.node(op, 'scores', ['query', 'key'], op === 'MatMul' ? {transpose_b: {b: true}} : {adj_y: {b: true}});
      g.node('Softmax', 'softmax', ['scores']);
      g.node(op, 'attended', ['softmax', 'value']);
      const random = (seed: number) => randomNormal([...shape], 0, 1, 'float32', seed);
      await expectSame(g.artifacts('attended'), {query: random(1), key: random(2), value: random(3)});
    }
  });

  it('the options: sparse attention gives something else, and its options are in the node', async () => {
    const product = products['Einsum'];
    const artifacts = attentionGraph(product, undefined, causalMasks['a constant of -1e9']).artifacts('Identity');
    const options = {
      threshold: 0.1,
      blockSize: 4,
      segmentSize: 4,
      auto: false,
      permute: false,
      precision: 'float16',
    } as const;
    const {modelArtifacts} = rewriteAttention(artifacts, options);
    const {attr} = (modelArtifacts.modelTopology as {node: Array<{op: string; attr: unknown}>}).node.find(
      ({op}) => op === 'PBSAttention',
    )!;
    expect(attr).to.deep.include({
      threshold: {f: 0.1},
      block_size: {i: 4},
      segment_size: {i: 4},
      auto: {b: false},
      permute: {b: false},
      causal: {b: true},
      precision: {s: btoa('float16')},
    });
    const feeds = inputs(product.layout);
    const [before, after] = [await load(artifacts), await load(modelArtifacts)].map((m) => m.execute(feeds) as Tensor);
    expect(await largestDifference(before, after)).to.be.above(1e-2);
  });
});

describeOnCPU('rewriteAttention, the model that it returns', () => {
  /** Two layers of attention that share a mask, the second reading the first. */
  function twoLayers(...outputs: string[]): io.ModelArtifacts {
    const g = new GraphBuilder();
    g.weight({name: 'words', shape: [2], dtype: 'string'}, Uint8Array.of(1, 0, 0, 0, 97, 2, 0, 0, 0, 98, 99).buffer);
    ['query', 'key', 'value'].forEach((name) => g.placeholder(name, [-1, 2, length, headDim]));
    g.constant('mask', [length, length], causalMask(length, -1e9));
    const layer = (name: string, query: string) => {
      g.node('BatchMatMulV2', `${name}/scores`, [query, 'key'], {adj_y: {b: true}});
      g.node('AddV2', `${name}/masked`, [`${name}/scores`, 'mask']);
      g.node('Softmax', `${name}/softmax`, [`${name}/masked:0`]);
      return g.node('BatchMatMulV2', `${name}/attended`, [`${name}/softmax`, 'value']);
    };
    layer('second', layer('first', 'query'));
    return g.artifacts('second/attended', ...outputs);
  }

  it('drops the mask and its weights, and leaves the given artifacts alone', async () => {
    const artifacts = twoLayers();
    const given = JSON.stringify(artifacts.modelTopology);
    const bytes = artifacts.weightData!;
    const {replaced, modelArtifacts} = await expectSame(artifacts, inputs('heads first'));
    expect(replaced.map(({node}) => node)).to.deep.equal(['first/attended', 'second/attended']);
    expect(modelArtifacts.weightSpecs!.map(({name}) => name)).to.deep.equal(['words']);
    expect(new tfio.CompositeArrayBuffer(modelArtifacts.weightData!).byteLength).to.equal(11);
    expect(JSON.stringify(artifacts.modelTopology)).to.equal(given);
    expect(artifacts.weightData).to.equal(bytes);
  });

  it('keeps what a layer that was left still needs', async () => {
    const artifacts = twoLayers('first/softmax');
    const {replaced, left, modelArtifacts} = rewriteAttention(artifacts, {threshold: 1});
    expect(replaced.map(({softmax}) => softmax)).to.deep.equal(['second/softmax']);
    expect(left).to.deep.equal([{softmax: 'first/softmax', reason: 'first/softmax is an output of the graph'}]);
    const feeds = inputs('heads first');
    const [before, after] = [await load(artifacts), await load(modelArtifacts)].map(
      (m) => m.execute(feeds) as Tensor[],
    );
    expect(await largestDifference(before[0], after[0])).to.be.below(1e-4);
    expect(await largestDifference(before[1], after[1])).to.equal(0);
  });

  it('is saved, loaded where the node is registered, and leaks nothing', async () => {
    const {modelArtifacts} = rewriteAttention(twoLayers(), {threshold: 1});
    const text = JSON.stringify(modelArtifacts.modelTopology);
    const {weightData, ...others} = {...modelArtifacts, modelTopology: JSON.parse(text)};
    const loaded = {...others, weightData: new tfio.CompositeArrayBuffer(weightData!).slice()};
    const feeds = inputs('heads first');
    deregisterOp('PBSAttention');
    const unknown = await load(loaded);
    expect(() => unknown.execute(feeds)).to.throw(/PBSAttention/);
    registerPBSAttentionOp();
    const model = await load(loaded);
    (model.execute(feeds) as Tensor).dispose();
    const before = memory().numTensors;
    (model.execute(feeds) as Tensor).dispose();
    expect(memory().numTensors).to.equal(before);
  });

  it('computes as before where query and key have other lengths, values another head dim, or batches are broadcast', async () => {
    const random = (shape: number[]) => randomNormal(shape, 0, 1, 'float32', 1);
    const attention = (product: string, mask: string) =>
      attentionGraph(products[product], undefined, causalMasks[mask]).artifacts('Identity');
    const adjY = 'BatchMatMulV2, adj_y';
    const cases: Array<[product: string, mask: string, query: number[], key: number[], value: number[]]> = [
      ['Einsum', 'none', [1, 2, 5, 8], [1, 2, 9, 8], [1, 2, 9, 8]],
      ['Einsum', 'none', [1, 2, 9, 8], [1, 2, 9, 8], [1, 2, 9, 3]],
      ['Einsum', 'a comparison of ranges', [1, 2, 9, 8], [1, 2, 9, 8], [1, 2, 9, 5]],
      ['Einsum', 'a comparison of ranges', [1, 2, 0, 8], [1, 2, 0, 8], [1, 2, 0, 8]],
      [adjY, 'none', [2, 2, 9, 8], [1, 2, 9, 8], [2, 2, 9, 8]],
      [adjY, 'none', [1, 2, 9, 8], [1, 1, 9, 8], [1, 1, 9, 8]],
      [adjY, 'none', [1, 1, 9, 8], [1, 2, 9, 8], [1, 2, 9, 8]],
    ];
    for (const [product, mask, query, key, value] of cases) {
      await expectSame(attention(product, mask), {query: random(query), key: random(key), value: random(value)});
    }
  });
});

describeOnCPU('rewriteAttention, what it leaves', () => {
  const product = products['BatchMatMulV2, adj_y'];
  const withMask = (values: ArrayLike<number>, shape = [length, length]) =>
    attentionGraph(product, undefined, (g, scores) =>
      g.node('AddV2', 'masked', [scores, g.constant('mask', shape, values)]),
    );
  const changed = (change: (g: GraphBuilder) => void) => {
    const g = attentionGraph(product, undefined, causalMasks['a constant of -1e9']);
    change(g);
    return g;
  };
  const notUnderstood = /^the mask in masked \(AddV2\) is not understood/;
  const find = (g: GraphBuilder, name: string) => g.nodes.find((node) => node.name === name)!;

  const cases: Record<string, [GraphBuilder, RegExp]> = {
    'a selection of scores that are not low enough': [
      attentionGraph(product, undefined, (g, scores) => {
        const visible = g.constant('visible', [length, length], causalMask(length, 0, 1), 'bool');
        return g.node('SelectV2', 'masked', [visible, scores, g.scalar('low', -3e4)]);
      }),
      /^the mask in masked \(SelectV2\) lowers later keys by -30000 alone, .* option hiddenBelow takes it from -30000$/,
    ],
    'a number that is added everywhere, in which scores are lost': [
      withMask(new Float32Array(length * length).fill(-1e9)),
      notUnderstood,
    ],
    'a scale that is no number': [
      attentionGraph(product, (g, scores) => g.node('RealDiv', 'scaled', [scores, g.scalar('nothing', 0)])),
      /^the scale is Infinity with nothing$/,
    ],
    'a product with a mask alone, which hides nothing': [
      attentionGraph(product, undefined, (g, scores) =>
        g.node('Mul', 'masked', [scores, g.constant('mask', [length, length], causalMask(length, 0, 1))]),
      ),
      /^the scale is not one number in masked \(Mul\)$/,
    ],
    'a scale for each head': [
      attentionGraph(product, (g, scores) =>
        g.node('Mul', 'scaled', [scores, g.constant('scale', [2, 1, 1], [0.3, 0.4])]),
      ),
      /^the scale is not one number in scaled \(Mul\)$/,
    ],
    'scores that are bent': [
      attentionGraph(product, (g, scores) => g.node('Tanh', 'capped', [scores])),
      /^its scores come from capped \(Tanh\)/,
    ],
    'scores that another node reads': [
      changed((g) => g.node('Relu', 'reader', ['scores'])),
      /^scores is read by scaled, reader, not by attention alone$/,
    ],
    'weights that another node reads': [
      changed((g) => g.node('Relu', 'reader', ['softmax:0'])),
      /^softmax is read by attended, reader, not by attention alone$/,
    ],
    'a scale made from the shape of the scores': [
      attentionGraph(product, (g, scores) => {
        const shape = g.node('Shape', 'shape', [scores]);
        const ends = [g.int('begin', 3), g.int('end', 4), g.int('strides', 1)];
        const size = g.node('StridedSlice', 'size', [shape, ...ends], {shrink_axis_mask: {i: '1'}});
        const types = {SrcT: {type: 'DT_INT32'}, DstT: {type: 'DT_FLOAT'}};
        return g.node('RealDiv', 'scaled', [scores, g.node('Cast', 'float', [size], types)]);
      }),
      /^its queries, keys, values, scale or mask are made from its scores$/,
    ],
    'weights that are dropped out': [
      changed((g) => {
        g.node('Mul', 'dropped', ['softmax', g.placeholder('kept', [-1])]);
        find(g, 'attended').input = ['dropped', 'value'];
      }),
      /^its result goes into dropped \(Mul\), not into a product with values$/,
    ],
    'a control input': [
      changed((g) => find(g, 'scaled').input!.push('^query')),
      /^scaled has control inputs or controls other nodes$/,
    ],
    'weights as second factor': [
      changed((g) => (find(g, 'attended').input = ['value', 'softmax'])),
      /^in attended the softmax runs over what its product with values does not sum over$/,
    ],
    'an einsum with an ellipsis': [
      attentionGraph({...product, scores: (g) => g.einsum('scores', ['query', 'key'], '...id,...jd->...ij')}),
      /^the einsum '\.\.\.id,\.\.\.jd->\.\.\.ij' is not one of two factors with single letters$/,
    ],
    'an einsum that sums over heads too': [
      attentionGraph({...product, scores: (g) => g.einsum('scores', ['query', 'key'], 'bhid,bhjd->bij')}),
      /^the einsum of scores is not one of queries and keys$/,
    ],
    'an einsum of weights by queries': [
      attentionGraph({...product, output: (g, weights) => g.einsum('attended', [weights, 'value'], 'bhij,bhid->bhjd')}),
      /^the einsum of attended is not one of weights and values$/,
    ],
  };
  for (const [name, [g, reason]] of Object.entries(cases)) {
    it(name, () => {
      const artifacts = g.artifacts('Identity');
      const {modelArtifacts, replaced, left} = rewriteAttention(artifacts);
      expect(replaced).to.deep.equal([]);
      expect(modelArtifacts).to.equal(artifacts);
      expect(left).to.have.length(1);
      expect(left[0].softmax).to.equal('softmax');
      expect(left[0].reason).to.match(reason);
    });
  }

  it('a classifier, attention in a function, and a graph without signature', () => {
    const g = changed((graph) => graph.node('Softmax', 'classes', [graph.placeholder('logits', [-1, 3])]));
    g.functions = [{signature: {name: 'body'}, nodeDef: [{name: 'inner', op: 'Softmax', input: ['x']}]}];
    const {replaced, left} = rewriteAttention({...g.artifacts(), signature: undefined});
    expect(replaced.map(({softmax}) => softmax)).to.deep.equal(['softmax']);
    expect(left).to.deep.equal([
      {softmax: 'body/inner', reason: 'it is inside a function'},
      {softmax: 'classes', reason: 'classes is an output of the graph'},
    ]);
  });

  it('refuses what is no graph model, and options that it cannot have', () => {
    const {modelTopology, ...noTopology} = attentionGraph(product).artifacts('Identity');
    const refusals: Array<[() => unknown, RegExp]> = [
      [() => rewriteAttention(noTopology), /rewriteAttention: modelArtifacts: got a modelTopology without nodes/],
      [
        () => rewriteAttention({modelTopology: {model_config: {}}}),
        /modelArtifacts: got a layers model; takes a graph/,
      ],
      [
        () => rewriteAttention({...noTopology, modelTopology, weightData: undefined}),
        /modelArtifacts: got no weightData/,
      ],
      [() => rewriteAttention({modelTopology}, {scale: 1} as never), /rewriteAttention: options: got 'scale'/],
      [() => rewriteAttention({modelTopology}, {blockSize: 0}), /rewriteAttention: blockSize: got 0/],
      [() => rewriteAttention({modelTopology}, {hiddenBelow: 1}), /hiddenBelow: got 1; takes a number below 0/],
    ];
    for (const [act, message] of refusals) {
      expect(act, `${message}`).to.throw(message);
    }
    expect(engine().backendName).to.equal('cpu');
  });
});
