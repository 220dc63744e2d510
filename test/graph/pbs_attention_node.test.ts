import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {io, memory, randomNormal, reshape} from '@tensorflow/tfjs-core';
import type {GraphModel} from '@tensorflow/tfjs-converter';
import {loadGraphModel} from '@tensorflow/tfjs-converter';
import {expect} from 'chai';
import {registerPBSAttentionOp} from '../../src/graph';
import {flashAttention, pbsAttention} from '../../src/index';
import {describeOnCPU} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {randomInputs, tensors} from '../reference/attention';
import {GraphBuilder} from './graph_builder';

/** A model of one `PBSAttention` node. */
async function nodeModel(attr: Record<string, unknown>, inputs = ['query', 'key', 'value']): Promise<GraphModel> {
  const g = new GraphBuilder();
  inputs.forEach((name) => g.node('Placeholder', name, [], {dtype: {type: 'DT_FLOAT'}}));
  g.node('PBSAttention', 'attended', inputs, attr);
  return loadGraphModel(io.fromMemory(g.artifacts('attended'))) as Promise<GraphModel>;
}

describeOnCPU('the node PBSAttention', () => {
  before(registerPBSAttentionOp);

  it('is pbsAttention, with its defaults and with attributes, grouped heads too', async () => {
    const [query, key, value] = tensors(
      randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 40, headDim: 8}, 1),
    );
    const attr = {
      threshold: {f: 0.75},
      block_size: {i: '8'},
      key_block_size: {i: 4},
      segment_size: {i: 16},
      causal: {b: false},
      scale: {f: 0.3},
      causal_safe: {b: true},
      estimate: {s: btoa('pooled')},
      auto: {b: false},
      precision: {s: btoa('float16')},
    };
    const options = {
      threshold: 0.75,
      blockSize: 8,
      keyBlockSize: 4,
      segmentSize: 16,
      causal: false,
      scale: 0.3,
      causalSafe: true,
      estimate: 'pooled' as const,
      auto: false,
      precision: 'float16' as const,
    };
    for (const {given, wanted} of [
      {given: attr, wanted: options},
      {
        given: {...attr, causal_safe: {b: false}, permute: {b: false}},
        wanted: {...options, causalSafe: false, permute: false},
      },
      {
        given: {...attr, causal_safe: {b: false}},
        wanted: {...options, causalSafe: false},
      },
      {given: {}, wanted: {}},
    ]) {
      const model = await nodeModel(given);
      const before = memory().numTensors;
      const ours = model.execute({query, key, value}) as Tensor;
      expect(memory().numTensors).to.equal(before + 1);
      expect(relativeL1(await ours.data(), await pbsAttention(query, key, value, wanted).data())).to.equal(0);
    }
  });

  it('attends to blocks under a mask', async () => {
    const [query, key, value] = tensors(randomInputs({batch: 2, heads: 2, length: 40, headDim: 8}, 3));
    const mask = randomNormal([2, 1, 1, 40]);
    const sizes = {block_size: {i: 8}, key_block_size: {i: 4}, segment_size: {i: 8}, threshold: {f: 0.5}};
    const model = await nodeModel({...sizes, auto: {b: false}, scale: {f: 1}, mask: {i: 3}}, [
      'query',
      'key',
      'value',
      'mask',
    ]);
    const ours = await (model.execute({query, key, value, mask}) as Tensor).data();
    const options = {mask: mask as Tensor4D, scale: 1};
    const blocks = {blockSize: 8, keyBlockSize: 4, segmentSize: 8, threshold: 0.5, auto: false};
    expect(relativeL1(ours, await pbsAttention(query, key, value, {...options, ...blocks}).data())).to.equal(0);
    expect(relativeL1(ours, await flashAttention(query, key, value, options).data()), 'sparse').to.be.above(0.01);
  });

  it('takes tensors of other ranks, with leading axes as batch', async () => {
    const [query, key, value] = tensors(randomInputs({batch: 2, heads: 3, length: 20, headDim: 8}, 2));
    const wanted = await pbsAttention(query, key, value).data();
    for (const shape of [
      [6, 20, 8],
      [2, 1, 3, 20, 8],
    ]) {
      const feeds = {query: reshape(query, shape), key: reshape(key, shape), value: reshape(value, shape)};
      const ours = (await nodeModel({})).execute(feeds) as Tensor;
      expect(ours.shape).to.deep.equal(shape);
      expect(relativeL1(await ours.data(), wanted)).to.be.below(1e-6);
    }
  });

  it('refuses what it cannot do, by name', async () => {
    const x = () => randomNormal([1, 2, 6, 8]);
    const two = await nodeModel({}, ['query', 'key']);
    expect(() => two.execute({query: x(), key: x()})).to.throw(
      /PBSAttention: inputs: got 2; takes query, key and value/,
    );
    const model = await nodeModel({});
    const run = (key: Tensor) => () => model.execute({query: x(), key, value: key});
    expect(run(randomNormal([1, 2, 5, 8]))).to.throw(/pbsAttention: query: got query \[1,2,6,8\] with key \[1,2,5,8\]/);
    expect(() => model.execute({query: randomNormal([8]), key: x(), value: x()})).to.throw(
      /inputs: got \[8\]; takes \[/,
    );
    expect(run(randomNormal([6, 8]))).to.throw(
      /PBSAttention: inputs: got \[6,8\] with query \[1,2,6,8\]; takes one rank/,
    );
    const five = {query: reshape(x(), [1, 2, 1, 6, 8]), key: reshape(x(), [2, 1, 1, 6, 8])};
    const other = () => model.execute({...five, value: five.key});
    expect(other).to.throw(/got \[2,1,1,6,8\] with query \[1,2,1,6,8\]; takes the query's leading dimensions/);
    const wrong = await nodeModel({threshold: {f: 3}});
    expect(() => wrong.execute({query: x(), key: x(), value: x()})).to.throw(/pbsAttention: threshold: got 3/);
  });
});
