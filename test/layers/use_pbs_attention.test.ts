import type {Tensor} from '@tensorflow/tfjs-core';
import {linalg, memory, ones, randomNormal, setBackend, tensor2d, tidy} from '@tensorflow/tfjs-core';
import {input, layers as coreLayers, model as coreModel} from '@tensorflow/tfjs-layers';
import type {SymbolicTensor} from '@tensorflow/tfjs-layers/dist/engine/topology';
import {MultiHeadAttention} from '@tensorflow/tfjs-layers/dist/layers/nlp/multihead_attention';
import {CachedMultiHeadAttention} from '@tensorflow/tfjs-layers/dist/layers/nlp/modeling/cached_multihead_attention';
import {GPT2Backbone} from '@tensorflow/tfjs-layers/dist/layers/nlp/models/gpt2/gpt2_backbone';
import {LayersModel} from '@tensorflow/tfjs-layers/dist/engine/training';
import {input as layersInput} from '@tensorflow/tfjs-layers/dist/exports';
import {expect} from 'chai';
import {usePBSAttention} from '../../src/layers';
import {describeBackends, describeOnCPU} from '../setup/environment';
import {SelfAttention} from './multi_head_attention';

const exact = {threshold: 1};
const sparse = {threshold: 0.3, blockSize: 8, segmentSize: 16, auto: false};

/** A two-layer model of custom layers with attention in a property. */
function customModel(): LayersModel {
  const x = layersInput({shape: [48, 16]});
  const layer = (name: string, causal: boolean) => new SelfAttention({name, causal});
  const y = layer('second', false).apply(layer('first', true).apply(x) as SymbolicTensor) as SymbolicTensor;
  return new LayersModel({inputs: x, outputs: y});
}

function backbone(): GPT2Backbone {
  return new GPT2Backbone({
    vocabularySize: 20,
    numLayers: 2,
    numHeads: 2,
    hiddenDim: 16,
    intermediateDim: 16,
    maxSequenceLength: 48,
  });
}

/**
 * The backbone layer by layer. tfjs 4.22's own `predict` hands a decoder its input in an array, which its residual sum
 * reads as numbers: every output is NaN.
 */
function runBackbone(model: GPT2Backbone, ids: Tensor, args: Record<string, unknown>): Tensor {
  return tidy(() => {
    const [token, position, add, ...rest] = model.layers.filter((layer) => layer.getClassName() !== 'InputLayer');
    const embedded = token.apply(ids) as Tensor;
    const sum = add.apply([embedded, position.apply(embedded) as Tensor]) as Tensor;
    return rest.reduce((x, layer) => layer.apply(x, {...args}) as Tensor, sum);
  });
}

async function largestDifference(a: Tensor, b: Tensor): Promise<number> {
  const [x, y] = [await a.data(), await b.data()];
  expect(x).to.have.length(y.length);
  return Math.max(...Array.from(x, (value, i) => Math.abs(value - y[i])));
}

const ids = () =>
  tensor2d(
    Array.from({length: 48}, (_, i) => (i * 7) % 20),
    [1, 48],
    'int32',
  );

describeBackends('usePBSAttention', (backend) => {
  before(() => setBackend(backend));

  it('gives the outputs of MultiHeadAttention with threshold 1, other ones sparse, and goes back', async () => {
    const model = customModel();
    const x = randomNormal([2, 48, 16], 0, 3, 'float32', 1);
    const predict = () => model.predict(x) as Tensor;
    const own = predict();
    const {replaced, left, restore} = usePBSAttention(model, exact);
    expect(replaced).to.deep.equal(['first.attention', 'second.attention']);
    expect(left).to.deep.equal([]);
    expect(await largestDifference(predict(), own)).to.be.within(1e-12, 1e-4);
    restore();
    expect(await largestDifference(predict(), own)).to.equal(0);
    const again = usePBSAttention(model, sparse);
    expect(await largestDifference(predict(), own)).to.be.above(1e-3);
    again.restore();
    expect(await largestDifference(predict(), own)).to.equal(0);
  });
});

describeOnCPU('usePBSAttention on values of another head dim', () => {
  it('gives the outputs of MultiHeadAttention with threshold 1', async () => {
    const layer = new MultiHeadAttention({numHeads: 2, keyDim: 8, valueDim: 6});
    const x = randomNormal([2, 48, 16], 0, 3, 'float32', 1);
    const attend = () => layer.call(x, {value: x, useCausalMask: true}) as Tensor;
    const own = attend();
    const {replaced, left} = usePBSAttention(layer, exact);
    expect([replaced, left]).to.deep.equal([[layer.name], []]);
    expect(await largestDifference(attend(), own)).to.be.within(1e-12, 1e-4);
  });
});

describeOnCPU('usePBSAttention on GPT2Backbone', () => {
  for (const useCausalMask of [true, false]) {
    it(`gives its outputs with threshold 1, ${useCausalMask ? 'causal' : 'not causal'}`, async () => {
      const model = backbone();
      const run = () => runBackbone(model, ids(), {useCausalMask});
      const own = run();
      const {replaced, restore} = usePBSAttention(model, exact);
      expect(replaced).to.deep.equal([
        'transformer_layer_0.selfAttentionLayer',
        'transformer_layer_1.selfAttentionLayer',
      ]);
      expect(await largestDifference(run(), own)).to.be.within(1e-12, 1e-4);
      restore();
      expect(await largestDifference(run(), own)).to.equal(0);
    });
  }

  it('refuses padding masks, attention masks and caches', () => {
    const model = backbone();
    usePBSAttention(model, exact);
    const run = (args: Record<string, unknown>) => () => runBackbone(model, ids(), args);
    expect(run({decoderPaddingMask: ones([1, 48])})).to.throw(
      /usePBSAttention: decoderPaddingMask: got one in a call of/,
    );
    expect(run({decoderAttentionMask: ones([1, 48, 48])})).to.throw(/usePBSAttention: decoderAttentionMask: got one/);
    const cache = ones([1, 2, 48, 2, 8]);
    expect(run({selfAttentionCache: cache, selfAttentionCacheUpdateIndex: 0})).to.throw(/selfAttentionCache: got one/);
  });
});

describeOnCPU('usePBSAttention, what it refuses and leaves', () => {
  const x = () => randomNormal([1, 6, 8]);

  function inUse<T extends MultiHeadAttention>(layer: T): T {
    usePBSAttention(layer, exact);
    return layer;
  }

  it('refuses calls that pbsAttention cannot do, by name', () => {
    const attention = inUse(new MultiHeadAttention({numHeads: 2, keyDim: 4, dropout: 0.1}));
    const cached = inUse(new CachedMultiHeadAttention({numHeads: 2, keyDim: 4}));
    const masked = Object.assign(x(), {kerasMask: ones([1, 6], 'bool')});
    const refusals: Array<[() => unknown, RegExp]> = [
      [
        () => attention.call(x(), {value: x(), attentionMask: ones([1, 6, 6])}),
        /usePBSAttention: attentionMask: got one/,
      ],
      [() => attention.call(masked, {value: masked}), /usePBSAttention: mask: got one in a call of .* \(maskZero/],
      [() => attention.call(x(), {value: randomNormal([1, 4, 8])}), /value: got a value of length 4 with a query of/],
      [() => attention.call(x(), {value: x(), training: true}), /usePBSAttention: dropout: got 0.1 while training/],
      [() => attention.callAndReturnAttentionScores(x(), {value: x()}), /got callAndReturnAttentionScores/],
      [() => attention.call(randomNormal([1, 2, 6, 8]), {value: x()}), /usePBSAttention: query: got \[1,2,6,8\]/],
      [() => cached.callAndReturnCache(x(), {value: x(), cache: ones([1, 2, 6, 2, 4])}), /cache: got a call of/],
      [() => cached.call(x(), {value: x(), attentionMask: ones([1, 6, 6])}), /usePBSAttention: attentionMask/],
    ];
    for (const [act, message] of refusals) {
      expect(act, `${message}`).to.throw(message);
    }
  });

  it('builds a layer at its first call, and leaks nothing', () => {
    const attention = inUse(new MultiHeadAttention({numHeads: 2, keyDim: 4}));
    const query = x();
    expect(attention.call(query, {value: query, key: query}).shape).to.deep.equal([1, 6, 8]);
    const before = memory().numTensors;
    attention.call(query, {value: query, useCausalMask: true}).dispose();
    expect(memory().numTensors).to.equal(before);
  });

  it('leaves the attention of decoders with masks of their own', async () => {
    const model = backbone();
    const [first] = model.layers.filter((layer) => 'computeSelfAttentionMask' in layer);
    const band = (x: Tensor) => tidy(() => linalg.bandPart(ones([1, x.shape[1]!, x.shape[1]!]), 2, 0).cast('bool'));
    Object.assign(first, {computeSelfAttentionMask: band});
    const run = () => runBackbone(model, ids(), {useCausalMask: true});
    const own = run();
    const {replaced, left, restore} = usePBSAttention(model, exact);
    expect(replaced).to.deep.equal(['transformer_layer_1.selfAttentionLayer']);
    expect(left).to.deep.equal([
      {
        layer: 'transformer_layer_0.selfAttentionLayer',
        reason: 'its decoder transformer_layer_0 overrides computeSelfAttentionMask',
      },
    ]);
    expect(await largestDifference(run(), own)).to.be.within(0, 1e-4);
    restore();
    expect(await largestDifference(run(), own)).to.equal(0);
  });

  it('leaves layers that it cannot replace, with a reason', () => {
    class Own extends MultiHeadAttention {
      static override readonly className = 'Own' as never;
      protected override computeAttention(query: Tensor): [Tensor, Tensor] {
        return [query, query];
      }
    }
    class SoftCapped extends MultiHeadAttention {
      protected override maskedSoftmax(scores: Tensor): Tensor {
        return scores;
      }
    }
    class Windowed extends CachedMultiHeadAttention {}
    // Private for TypeScript alone.
    Object.assign(Windowed.prototype, {computeAttentionMask: () => ones([1, 1])});
    class OwnCache extends CachedMultiHeadAttention {
      override callAndReturnCache(query: Tensor): [Tensor, Tensor] {
        return [query, query];
      }
    }
    const holder = Object.assign(new SelfAttention({name: 'holder', causal: false}), {
      more: [
        new MultiHeadAttention({numHeads: 2, keyDim: 4, attentionAxes: [1, 2]}),
        new Own({numHeads: 2, keyDim: 4}),
        new SoftCapped({numHeads: 2, keyDim: 4}),
        new Windowed({numHeads: 2, keyDim: 4}),
        new OwnCache({numHeads: 2, keyDim: 4}),
        new CachedMultiHeadAttention({numHeads: 2, keyDim: 4}),
      ],
    });
    const {replaced, left} = usePBSAttention(holder, exact);
    expect(replaced).to.deep.equal(['holder.attention', 'holder.more.5']);
    expect(left).to.deep.equal([
      {layer: 'holder.more.0', reason: 'attentionAxes [1,2]; pbsAttention attends over axis 1'},
      {layer: 'holder.more.1', reason: 'its class overrides computeAttention'},
      {layer: 'holder.more.2', reason: 'its class overrides maskedSoftmax'},
      {layer: 'holder.more.3', reason: 'its class overrides computeAttentionMask'},
      {layer: 'holder.more.4', reason: 'its class overrides callAndReturnCache'},
    ]);
  });

  it('refuses a model without attention, in use already, or with an option that it cannot have', () => {
    const inputs = input({shape: [4]});
    const outputs = coreLayers.dense({units: 2}).apply(inputs) as SymbolicTensor as never;
    const plain = coreModel({inputs, outputs});
    const attention = inUse(new MultiHeadAttention({numHeads: 2, keyDim: 4}));
    const refusals: Array<[() => unknown, RegExp]> = [
      [() => usePBSAttention(plain), /usePBSAttention: model: got '.*' without MultiHeadAttention/],
      [() => usePBSAttention(attention), /usePBSAttention: model: got .*, which uses pbsAttention already/],
      [() => usePBSAttention(3 as never), /usePBSAttention: model: got number; takes a LayersModel or a Layer/],
      [() => usePBSAttention(plain, {causal: true} as never), /usePBSAttention: options: got 'causal'/],
      [() => usePBSAttention(plain, {threshold: -1}), /usePBSAttention: threshold: got -1/],
    ];
    for (const [act, message] of refusals) {
      expect(act, `${message}`).to.throw(message);
    }
  });
});
