import {randomNormal, setBackend, tensor2d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {rewriteAttention} from '../../src/graph';
import {describeBackends} from '../setup/environment';
import {compareRewritten} from './compare_rewritten';
import {bert, columns, gpt2, yolo11, yolo12} from './converted_graphs';
import type {GraphBuilder} from './graph_builder';

const random = (shape: number[], seed = 1) => randomNormal(shape, 0, 2, 'float32', seed);
const artifacts = (g: GraphBuilder) => g.artifacts('Identity');
const attributesOf = ({modelTopology}: ReturnType<typeof rewriteAttention>['modelArtifacts']) =>
  (modelTopology as {node: Array<{op: string; attr: Record<string, unknown>}>}).node.find(
    ({op}) => op === 'PBSAttention',
  )!.attr;

describeBackends('rewriteAttention, converted models', (backend) => {
  before(() => setBackend(backend));

  it('YOLO11: tensors whose rows are channels, by StridedSlice, values of another dim', async () => {
    const {replaced, modelArtifacts} = await compareRewritten(artifacts(yolo11(5)), {x: random([1, 5, 5, 64])});
    expect(replaced).to.have.length(1);
    expect(attributesOf(modelArtifacts)).to.deep.include({
      transpose_query: {b: true},
      transpose_value: {b: true},
      transpose_output: {b: true},
    });
  });

  it('YOLO12: the same over areas, by Split', async () => {
    const {replaced} = await compareRewritten(artifacts(yolo12(6)), {x: random([1, 6, 6, 48])});
    expect(replaced).to.have.length(1);
  });

  it('a softmax over another axis than the last', async () => {
    const feeds = {query: random([2, 9, 8]), key: random([2, 13, 8], 2), value: random([2, 13, 4], 3)};
    const {replaced, left} = await compareRewritten(artifacts(columns()), feeds);
    expect({replaced: replaced.length, left}).to.deep.equal({replaced: 1, left: []});
  });

  it('BERT: a padding mask of -1e4 that is an input', async () => {
    const shape = [2, 18, 2, 8];
    const mask = tensor2d(
      Array.from({length: 36}, (_, i) => Number(i < 18 || i < 29)),
      [2, 18],
    );
    const feeds = {query: random(shape), key: random(shape, 2), value: random(shape, 3), mask};
    const {replaced} = await compareRewritten(artifacts(bert()), feeds);
    expect(replaced[0]).to.deep.include({causal: false, masks: ['padding']});
  });

  it('GPT-2: a causal mask of -1e4 over a past, if hiddenBelow allows it', async () => {
    const {left} = rewriteAttention(artifacts(gpt2()));
    expect(left[0].reason).to.match(
      /^the mask in kept \(Mul\) lowers later keys by -10000 alone, which large scores outweigh: option hiddenBelow/,
    );
    // All rows, a chunk, a token.
    for (const [rows, keys] of [
      [18, 18],
      [5, 18],
      [1, 18],
    ]) {
      const feeds = {
        query: random([1, 2, rows, 8]),
        key: random([1, 2, keys, 8], 2),
        value: random([1, 2, keys, 8], 3),
      };
      const {replaced, modelArtifacts} = await compareRewritten(artifacts(gpt2()), feeds, {hiddenBelow: -1e4});
      expect(replaced[0]).to.deep.include({causal: true, masks: []});
      expect(attributesOf(modelArtifacts)).to.deep.include({mask_size: {s: btoa('axis:2 axis:3 end')}});
    }
  });
});
