import type {Tensor, Variable} from '@tensorflow/tfjs-core';
import {
  fill,
  grads,
  io,
  memory,
  mul,
  randomNormal,
  sum,
  tensor,
  tidy,
  variableGrads,
  zeros,
} from '@tensorflow/tfjs-core';
import type {LayersModel, SymbolicTensor} from '@tensorflow/tfjs-layers';
import {input, layers, loadLayersModel, model as layersModel} from '@tensorflow/tfjs-layers';
import {MultiHeadAttention as HiddenMultiHeadAttention} from '@tensorflow/tfjs-layers/dist/layers/nlp/multihead_attention';
import {expect} from 'chai';
import type {MultiHeadAttentionArgs} from '../../src/layers';
import {MultiHeadAttention} from '../../src/layers';
import {difference} from '../reference/difference';
import {describeOnCPU, fixture} from '../setup/environment';

/** `multi_head_attention.py` */
interface Listed {
  shape: number[];
  values: number[];
}
interface KerasCase extends Record<'inputs' | 'weights' | 'inputGradients' | 'weightGradients', Listed[]> {
  output: Listed;
  dy: Listed;
  mask?: Listed;
}

const argsOf: Record<string, MultiHeadAttentionArgs> = {
  causal: {numHeads: 2, keyDim: 3, useCausalMask: true},
  'another value, key and mask': {numHeads: 3, keyDim: 4, valueDim: 2, outputShape: 5},
  'without bias': {numHeads: 2, keyDim: 3, useBias: false, outputShape: [2, 3]},
};

const tensorOf = ({values, shape}: Listed) => tensor(values, shape);
const apply = (layer: MultiHeadAttention, inputs: Tensor[], kwargs?: object) => layer.apply(inputs, kwargs) as Tensor;
const expectClose = (actual: ArrayLike<number>, expected: ArrayLike<number>, what = '') =>
  expect(difference(actual, expected), what).to.be.below(1e-5);

/** A model that attends to 12 tokens of 8 features, causally. */
function causalModel(args: Partial<MultiHeadAttentionArgs> = {}): LayersModel {
  const x = input({shape: [12, 8]});
  const attention = new MultiHeadAttention({name: 'attention', numHeads: 2, keyDim: 4, useCausalMask: true, ...args});
  const attended = attention.apply([x, x]) as SymbolicTensor;
  return layersModel({inputs: x, outputs: layers.dense({units: 3}).apply(attended) as SymbolicTensor});
}

describeOnCPU('MultiHeadAttention, the layer', () => {
  it('is that of Keras, with its weights, forward and backward', async () => {
    const text = new TextDecoder().decode(await fixture('test/golden/multi_head_attention.json'));
    const cases = JSON.parse(text) as Record<string, KerasCase>;
    expect(Object.keys(cases)).to.deep.equal(Object.keys(argsOf));
    for (const [name, {inputs, weights, output, dy, mask, ...gradients}] of Object.entries(cases)) {
      const layer = new MultiHeadAttention(argsOf[name]);
      const given = inputs.map(tensorOf);
      // A mask is the fourth input.
      const masks = mask ? [tensorOf(mask)] : [];
      layer.build([...given, ...masks].map(({shape}) => shape));
      expect(layer.getWeights().map(({shape}) => shape)).to.deep.equal(weights.map(({shape}) => shape));
      layer.setWeights(weights.map(tensorOf));
      const attended = apply(layer, [...given, ...masks]);
      expect(attended.shape).to.deep.equal(output.shape);
      expectClose(await attended.data(), output.values, name);

      const loss = (...x: Tensor[]) => sum(mul(apply(layer, [...x, ...masks]), tensorOf(dy)));
      const byInput = grads((...x) => loss(...x))(given);
      for (const [i, expected] of gradients.inputGradients.entries()) {
        expectClose(await byInput[i].data(), expected.values, `${name}, by input ${i}`);
      }
      const variables = layer.trainableWeights.map((weight) => (weight as unknown as {val: Variable}).val);
      const byWeight = variableGrads(() => loss(...given).asScalar(), variables).grads;
      const scale = Math.max(...gradients.weightGradients.flatMap(({values}) => values.map(Math.abs)));
      for (const [i, {values}] of gradients.weightGradients.entries()) {
        const found = await byWeight[variables[i].name].data();
        // The bias of keys moves nothing: its gradient is what rounding leaves.
        const worst = Math.max(...values.map((x, j) => Math.abs(x - found[j])));
        expect(worst / scale, `${name}, by weight ${i}`).to.be.below(1e-5);
      }
    }
  });

  it('trains in a model, also with dropout, a regulariser and sparse attention, and is saved and loaded', async () => {
    const sparse = {blockSize: 4, segmentSize: 4, threshold: 0.5, auto: false};
    for (const args of [{dropout: 0.1, kernelRegularizer: 'l1l2' as const}, {attention: sparse}]) {
      const model = causalModel(args);
      const attention = model.getLayer('attention');
      model.compile({optimizer: 'adam', loss: 'meanSquaredError'});
      const [x, y] = [randomNormal([16, 12, 8]), randomNormal([16, 12, 3])];
      const before = attention.getWeights().map((weight) => weight.dataSync().slice());
      const {history} = await model.fit(x, y, {epochs: 8, verbose: 0});
      expect(Number(history['loss'].at(-1))).to.be.below(Number(history['loss'][0]));
      attention.getWeights().forEach((weight, i) => expect(difference(weight.dataSync(), before[i])).to.be.above(0));

      let saved: io.ModelArtifacts = {};
      await model.save(
        io.withSaveHandler(async (artifacts) => {
          saved = artifacts;
          return {modelArtifactsInfo: {dateSaved: new Date(0), modelTopologyType: 'JSON'}};
        }),
      );
      const topology = JSON.parse(JSON.stringify(saved.modelTopology));
      const loaded = await loadLayersModel(io.fromMemory({...saved, modelTopology: topology}));
      expect(loaded.getLayer('attention')).to.be.instanceOf(MultiHeadAttention);
      expect(loaded.getLayer('attention').getConfig()).to.deep.equal(attention.getConfig());
      const [ours, theirs] = [model, loaded].map((of) => (of.predict(x) as Tensor).dataSync());
      expect(Array.from(theirs)).to.deep.equal(Array.from(ours));
    }
  });

  it('drops weights out while training alone, under the same masks', async () => {
    const [x, y] = [randomNormal([2, 6, 8]), randomNormal([2, 9, 5])];
    // Row 2 of the first entry sees nothing.
    const mask = tensor(
      Array.from({length: 108}, (_, i) => (i % 5 > 0 && !(i >= 18 && i < 27) ? 1 : 0)),
      [2, 6, 9],
    );
    for (const useCausalMask of [false, true]) {
      const args = {numHeads: 2, keyDim: 4, useCausalMask};
      const [few, half] = [1e-9, 0.5].map((dropout) => new MultiHeadAttention({...args, dropout}));
      const plain = await apply(few, [x, y, y, mask]).data();
      expectClose(await apply(few, [x, y, y, mask], {training: true}).data(), plain, 'next to nothing');
      half.build([x.shape, y.shape, y.shape, mask.shape]);
      half.setWeights(few.getWeights());
      expectClose(await apply(half, [x, y, y, mask]).data(), plain, 'not training');
      const dropped = await apply(half, [x, y, y, mask], {training: true}).data();
      expect(difference(dropped, plain)).to.be.above(0.01);
      // Without a bias in the output a blind row is zeros.
      expect(Array.from(plain.slice(2 * 8, 3 * 8)).every((value) => value === 0)).to.equal(true);
    }
  });

  it('attends by pbsAttention where options for it are given, under a mask, too', async () => {
    const x = randomNormal([1, 64, 8]);
    const args = {numHeads: 2, keyDim: 4, useCausalMask: true};
    const exact = new MultiHeadAttention(args);
    const mask = tensor(Array.from({length: 64 * 64}, (_, i) => Number(i % 5 > 1))).reshape([1, 64, 64]);
    const inputs = [x, x, x, mask];
    const expected = await apply(exact, inputs).data();
    const sizes = {blockSize: 8, segmentSize: 8, auto: false};
    for (const [threshold, least, most] of [
      [1, 0, 1e-5],
      [0, 1e-3, 2],
    ]) {
      const layer = new MultiHeadAttention({...args, attention: {...sizes, threshold}});
      layer.build([x.shape, x.shape]);
      layer.setWeights(exact.getWeights());
      expect(difference(await apply(layer, inputs).data(), expected)).to.be.within(least, most);
    }
  });

  it('takes the mask of an embedding in self-attention', async () => {
    const ids = input({shape: [6]});
    const x = layers.embedding({inputDim: 5, outputDim: 8, maskZero: true}).apply(ids) as SymbolicTensor;
    const attention = new MultiHeadAttention({numHeads: 2, keyDim: 4});
    const model = layersModel({inputs: ids, outputs: attention.apply([x, x]) as SymbolicTensor});
    const found = await (model.predict(tensor([[1, 2, 3, 0, 0, 0]])) as Tensor).data();
    const embedded = (layersModel({inputs: ids, outputs: x}).predict(tensor([[1, 2, 3, 0, 0, 0]])) as Tensor).clone();
    const mask = tensor([1, 1, 1, 0, 0, 0], [1, 1, 6]);
    expectClose(found, await apply(attention, [embedded, embedded, embedded, mask]).data());
    const plain = input({shape: [6, 8]});
    const other = new MultiHeadAttention({numHeads: 2, keyDim: 4}).apply([plain, x]) as SymbolicTensor;
    const refused = /MultiHeadAttention: mask: got that of an embedding of another input than the query/;
    const both = layersModel({inputs: [plain, ids], outputs: other});
    expect(() => both.predict([zeros([1, 6, 8]), tensor([[1, 2, 3, 0, 0, 0]])])).to.throw(refused);
  });

  it('takes over from the class that tfjs-layers does not export', async () => {
    const x = randomNormal([2, 7, 8]);
    const hidden = new HiddenMultiHeadAttention({numHeads: 2, keyDim: 3});
    const expected = await hidden.call(x, {value: x, useCausalMask: true}).data();
    // As docs/adopt/layers.md says it.
    const layer = new MultiHeadAttention({numHeads: 2, keyDim: 3, useCausalMask: true});
    layer.build([x.shape, x.shape]);
    const {queryDense, keyDense, valueDense, outputDense} = hidden as unknown as Record<string, layers.Layer>;
    layer.setWeights([queryDense, keyDense, valueDense, outputDense].flatMap((dense) => dense.getWeights()));
    expectClose(await apply(layer, [x, x]).data(), expected);
  });

  it('holds its weights to a constraint, which its config says', () => {
    const layer = new MultiHeadAttention({numHeads: 2, keyDim: 4, kernelConstraint: 'nonNeg', biasInitializer: 'ones'});
    layer.build([
      [1, 4, 8],
      [1, 4, 8],
    ]);
    layer.setWeights(layer.getWeights().map(({shape}) => fill(shape, -2)));
    const firsts = layer.getWeights().map((weight) => weight.dataSync()[0]);
    expect(firsts.map((x) => x + 0)).to.deep.equal([0, -2, 0, -2, 0, -2, 0, -2]);
    expect(layer.getConfig()).to.deep.include({kernelConstraint: {className: 'NonNeg', config: {}}});
    expect(layer.getConfig()).to.deep.include({biasInitializer: {className: 'Ones', config: {}}});
  });

  it('leaks nothing, and keeps unknown lengths unknown', () => {
    const x = input({shape: [null, 8]});
    const y = new MultiHeadAttention({numHeads: 2, keyDim: 4, outputShape: 5}).apply([x, x]) as SymbolicTensor;
    expect(y.shape).to.deep.equal([null, null, 5]);
    const model = layersModel({inputs: x, outputs: y});
    const before = memory().numTensors;
    const attended = tidy(() => model.predict(randomNormal([1, 9, 8])) as Tensor);
    expect(attended.shape).to.deep.equal([1, 9, 5]);
    attended.dispose();
    expect(memory().numTensors).to.equal(before);
  });

  it('refuses what it cannot do, by name', () => {
    const args = {numHeads: 2, keyDim: 4};
    const x = zeros([1, 4, 8]);
    const made = (changes: object, inputs = [x, x], kwargs?: object) => {
      return () => apply(new MultiHeadAttention({...args, ...changes}), inputs, kwargs);
    };
    const refusals: Array<[() => unknown, RegExp]> = [
      [made({numHead: 1}), /MultiHeadAttention: arguments: got 'numHead'; takes numHeads/],
      [made({keyDim: 0}), /MultiHeadAttention: keyDim: got 0; takes a positive integer/],
      [made({outputShape: [1.5, 2]}), /MultiHeadAttention: outputShape: got 1.5/],
      [made({dropout: 1}), /MultiHeadAttention: dropout: got 1/],
      [made({useBias: 1}), /MultiHeadAttention: useBias: got 1/],
      [made({attentionAxes: [1, 2]}), /MultiHeadAttention: attentionAxes: got \[1,2\]; takes \[1\]/],
      [made({attention: {causal: true}}), /MultiHeadAttention: options: got 'causal'/],
      [made({attention: {threshold: 2}}), /MultiHeadAttention: threshold: got 2/],
      [made({}, [x]), /MultiHeadAttention: inputs: got 1/],
      [made({}, [x, zeros([4, 8])]), /MultiHeadAttention: value: got \[4,8\]/],
      [made({}, [x, x, x, zeros([4])]), /MultiHeadAttention: attentionMask: got \[4\]/],
      [made({}, [x, x], {useCausalMask: true}), /MultiHeadAttention: useCausalMask: got an argument of the call/],
      [made({attention: {}, dropout: 0.1}, [x, x], {training: true}), /MultiHeadAttention: dropout: got 0.1 while/],
    ];
    for (const [act, message] of refusals) {
      expect(act).to.throw(message);
    }
  });
});
