import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {io, memory, randomNormal, reshape, setBackend, tensor, tidy, transpose} from '@tensorflow/tfjs-core';
import type {LayersModel, SymbolicTensor} from '@tensorflow/tfjs-layers';
import {input, layers, loadLayersModel, model as layersModel} from '@tensorflow/tfjs-layers';
import {expect} from 'chai';
import {pbsAttention} from '../../src/index';
import type {PBSAttentionLayerArgs} from '../../src/layers';
import {PBSAttention} from '../../src/layers';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {composedAttention, randomInputs, tensors} from '../reference/attention';

const sparse = {blockSize: 8, segmentSize: 16, threshold: 0.5, auto: false};

/** `[batch, heads, length, headDim]` → `[batch, length, heads · headDim]`. */
function mergeHeads(x: Tensor4D): Tensor {
  const [batch, heads, length, headDim] = x.shape;
  return tidy(() => reshape(transpose(x, [0, 2, 1, 3]), [batch, length, heads * headDim]));
}

/** A model of dense projections, attention and a dense layer: 40 tokens of 12 features, 4 heads of 6. */
function attentionModel(args: PBSAttentionLayerArgs): LayersModel {
  const x = input({shape: [40, 12]});
  const dense = (name: string, units: number) => layers.dense({name, units}).apply(x) as SymbolicTensor;
  const attention = new PBSAttention({name: 'attention', numHeads: 4, numKeyValueHeads: 2, ...args});
  const attended = attention.apply([
    dense('to_query', 24),
    dense('to_value', 12),
    dense('to_key', 12),
  ]) as SymbolicTensor;
  return layersModel({inputs: x, outputs: layers.dense({name: 'head', units: 5}).apply(attended) as SymbolicTensor});
}

describeBackends('PBSAttention, the layer', (backend) => {
  before(() => setBackend(backend));

  it('is pbsAttention on inputs with heads, in the order query, value, key', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 4, keyValueHeads: 2, length: 40, headDim: 8}, 1));
    const ours = new PBSAttention(sparse).apply([q, v, k]) as Tensor;
    expect(ours.shape).to.deep.equal(q.shape);
    expect(relativeL1(await ours.data(), await pbsAttention(q, k, v, sparse).data())).to.equal(0);
  });

  it('splits heads itself, grouped ones too, and takes the value for a key that is not given', async () => {
    const [q, k, v] = tensors(randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 40, headDim: 8}, 2));
    const layer = new PBSAttention({numHeads: 4, numKeyValueHeads: 2, threshold: 1, causal: false, scale: 0.3});
    const three = layer.apply([mergeHeads(q), mergeHeads(v), mergeHeads(k)]) as Tensor;
    const theirs = mergeHeads(composedAttention(q, k, v, {causal: false, scale: 0.3}));
    expect(three.shape).to.deep.equal([2, 40, 32]);
    expect(relativeL1(await three.data(), await theirs.data())).to.be.below(1e-4);
    const two = layer.apply([mergeHeads(q), mergeHeads(v)]) as Tensor;
    const valueIsKey = mergeHeads(composedAttention(q, v, v, {causal: false, scale: 0.3}));
    expect(relativeL1(await two.data(), await valueIsKey.data())).to.be.below(1e-4);
  });
});

describeOnCPU('PBSAttention, the layer, in models', () => {
  it('takes keys of another length and values of another head dim', async () => {
    const shape = {heads: 4, keyValueHeads: 2, length: 12, keyLength: 30, headDim: 8, valueDim: 6};
    const [q, k, v] = tensors(randomInputs(shape, 3));
    const options = {threshold: 1, causal: false};
    const expected = await composedAttention(q, k, v, options).data();
    const plain = new PBSAttention(options);
    expect(plain.computeOutputShape([q.shape, v.shape, k.shape])).to.deep.equal([1, 4, 12, 6]);
    expect(relativeL1(await (plain.apply([q, v, k]) as Tensor).data(), expected)).to.be.below(1e-5);
    const split = new PBSAttention({...options, numHeads: 4, numKeyValueHeads: 2});
    expect(
      split.computeOutputShape([
        [null, null, 32],
        [null, null, 12],
        [null, null, 16],
      ]),
    ).to.deep.equal([null, null, 24]);
    const merged = split.apply([mergeHeads(q), mergeHeads(v), mergeHeads(k)]) as Tensor;
    expect(merged.shape).to.deep.equal([1, 12, 24]);
    const theirs = mergeHeads(composedAttention(q, k, v, options));
    expect(relativeL1(await merged.data(), await theirs.data())).to.be.below(1e-5);
  });

  it('saves and loads, with the same config, weights and output', async () => {
    const options = {...sparse, scale: 0.25, causal: false, precision: 'float16', permute: false} as const;
    const model = attentionModel(options);
    let saved: io.ModelArtifacts = {};
    await model.save(
      io.withSaveHandler(async (artifacts) => {
        saved = artifacts;
        return {modelArtifactsInfo: {dateSaved: new Date(0), modelTopologyType: 'JSON'}};
      }),
    );
    const x = randomNormal([1, 40, 12]);
    const [config, before] = [model.getLayer('attention').getConfig(), await (model.predict(x) as Tensor).data()];
    model.dispose();
    const topology = JSON.parse(JSON.stringify(saved.modelTopology));
    const loaded = await loadLayersModel(io.fromMemory({...saved, modelTopology: topology}));
    expect(loaded.getLayer('attention')).to.be.instanceOf(PBSAttention);
    expect(loaded.getLayer('attention').getConfig()).to.deep.equal(config);
    expect(config).to.include({...options, numHeads: 4, numKeyValueHeads: 2, keyBlockSize: 8, estimate: 'sampled'});
    expect(await (loaded.predict(x) as Tensor).data()).to.deep.equal(before);
  });

  it('leaves the scale to the head dim unless it is given', () => {
    expect(new PBSAttention().getConfig()).not.to.have.property('scale');
    expect(new PBSAttention().getConfig()).to.include({
      threshold: 0.9,
      blockSize: 128,
      keyBlockSize: 64,
      segmentSize: 256,
      estimate: 'sampled',
      permute: true,
    });
  });

  it('keeps unknown lengths unknown, and leaks nothing', () => {
    const x = input({shape: [null, 16]});
    const y = new PBSAttention({numHeads: 2}).apply([x, x]) as SymbolicTensor;
    expect(y.shape).to.deep.equal([null, null, 16]);
    const model = layersModel({inputs: x, outputs: y});
    const before = memory().numTensors;
    for (const length of [3, 20]) {
      const y = tidy(() => model.predict(randomNormal([1, length, 16])) as Tensor);
      expect(y.shape).to.deep.equal([1, length, 16]);
      y.dispose();
    }
    expect(memory().numTensors).to.equal(before);
  });

  it('refuses what it cannot do, by name', () => {
    const x = input({shape: [6, 16]});
    const withHeads = input({shape: [2, 6, 8]});
    const refusals: Array<[() => unknown, RegExp]> = [
      [() => new PBSAttention({treshold: 1} as never), /PBSAttention: options: got 'treshold'/],
      [() => new PBSAttention({threshold: 2}), /PBSAttention: threshold: got 2/],
      [() => new PBSAttention({numHeads: 1.5}), /PBSAttention: numHeads: got 1.5/],
      [() => new PBSAttention({numKeyValueHeads: 2}), /PBSAttention: numKeyValueHeads: got 2 with numHeads undefined/],
      [() => new PBSAttention({numHeads: 4, numKeyValueHeads: 3}), /PBSAttention: numKeyValueHeads: got 3 with/],
      [() => new PBSAttention({numHeads: 2}).apply(x), /PBSAttention: inputs: got 1; takes \[query, value\]/],
      [() => new PBSAttention().apply([x, x]), /PBSAttention: query: got \[,6,16\]; takes \[batch, heads, length/],
      [() => new PBSAttention({numHeads: 2}).apply([withHeads, withHeads]), /PBSAttention: query: got \[,2,6,8\]/],
      [() => new PBSAttention({numHeads: 3}).apply([x, x]), /PBSAttention: query: got \[,6,16\]; takes a last/],
    ];
    for (const [act, message] of refusals) {
      expect(act).to.throw(message);
    }
  });

  it('refuses the mask of an embedding', () => {
    const ids = input({shape: [6]});
    const x = layers.embedding({inputDim: 5, outputDim: 8, maskZero: true}).apply(ids) as SymbolicTensor;
    const model = layersModel({
      inputs: ids,
      outputs: new PBSAttention({numHeads: 2}).apply([x, x]) as SymbolicTensor,
    });
    const padded = tensor([[1, 2, 3, 0, 0, 0]]);
    const refused = /PBSAttention: mask: got the mask of an earlier layer/;
    expect(() => model.predict(padded)).to.throw(refused);
    // tfjs hands a call the mask of its first input alone.
    const plain = input({shape: [6, 8]});
    const attended = new PBSAttention({numHeads: 2}).apply([plain, x, plain]) as SymbolicTensor;
    const masked = layersModel({inputs: [plain, ids], outputs: attended});
    expect(() => masked.predict([randomNormal([1, 6, 8]), padded])).to.throw(refused);
    const eager = layers.embedding({inputDim: 5, outputDim: 8, maskZero: true}).apply(padded) as Tensor;
    expect(() => new PBSAttention({numHeads: 2}).apply([eager, eager])).to.throw(refused);
    const unmasked = layersModel({
      inputs: plain,
      outputs: new PBSAttention({numHeads: 2}).apply([plain, plain]) as SymbolicTensor,
    });
    expect((unmasked.predict(randomNormal([1, 6, 8])) as Tensor).shape).to.deep.equal([1, 6, 8]);
  });
});
