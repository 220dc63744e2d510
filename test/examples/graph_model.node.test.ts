import {readFileSync} from 'node:fs';
import {io, ones, randomUniform, setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {compareRewritten} from '../graph/compare_rewritten';
import {attentionGraph, length, products} from '../graph/attention_graphs';
import {causalMask} from '../graph/graph_builder';

const folder = new URL('../../examples/graph_model/model/', import.meta.url);

describe('the graph model of the examples', () => {
  it('is what Keras 3 and the converter write, and is rewritten throughout', async () => {
    await setBackend('cpu');
    const json = JSON.parse(readFileSync(new URL('model.json', folder), 'utf8')) as io.ModelJSON;
    const artifacts = await io.getModelArtifactsForJSON(json, (manifest) => {
      const bytes = Uint8Array.from(readFileSync(new URL(manifest[0].paths[0], folder)));
      return Promise.resolve([manifest[0].weights, bytes.buffer]);
    });
    const {replaced, left} = await compareRewritten(artifacts, {tokens: randomUniform([2, 20], 0, 64, 'int32', 1)});
    expect(replaced.map(({causal, masks}) => ({causal, masks}))).to.deep.equal([
      {causal: true, masks: []},
      {causal: true, masks: []},
    ]);
    expect(left).to.deep.equal([]);
  });

  it("Keras 3's selection by a mask and a tensor of true as large as the scores", async () => {
    const g = attentionGraph(products['BatchMatMulV2, adj_y'], undefined, (graph, scores) => {
      const shape = graph.node('Shape', 'shape', [scores]);
      const all = graph.node('Fill', 'all', [shape, graph.constant('true', [], [1], 'bool')], {T: {type: 'DT_BOOL'}});
      const seen = graph.constant(
        'seen',
        [1, 1, 1, length],
        causalMask(length, 0, 1).slice(9 * length, 10 * length),
        'bool',
      );
      const visible = graph.node('LogicalAnd', 'visible', [all, seen]);
      return graph.node('SelectV2', 'masked', [visible, scores, graph.scalar('low', -3.4e38)]);
    });
    const x = ones([1, 2, length, 8]);
    const value = randomUniform([1, 2, length, 8], -1, 1, 'float32', 1);
    const {replaced} = await compareRewritten(g.artifacts('Identity'), {query: x, key: x, value});
    expect(replaced[0].masks).to.deep.equal(['seen']);
  });
});
