import type {Tensor4D} from '@tensorflow/tfjs-core';
import {add, cast, matMul, memory, mul, setBackend, softmax, tensor4d, tidy, where} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {FlashAttentionOptions, PBSAttentionOptions} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {grads4D} from '../reference/attention_gradients';
import {describeAllBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {randomInputs, repeatHeads} from '../reference/attention';

/** Two entries of a batch; 12 query rows over 40 keys; values of another head dim. */
const [batch, heads, queryLength, keyLength, headDim, valueDim] = [2, 4, 12, 40, 6, 10];
const names = ['query', 'key', 'value'];

/** Query, key, value and a gradient by the output. */
function inputs(): [Tensor4D, Tensor4D, Tensor4D, Tensor4D] {
  const values = (seed: number, heads: number, length: number, headDim: number) =>
    tensor4d(randomInputs({batch, heads, length, headDim}, seed).key, [batch, heads, length, headDim]);
  return [
    values(71, heads, queryLength, headDim),
    values(72, 2, keyLength, headDim),
    values(73, 2, keyLength, valueDim),
    values(74, heads, queryLength, valueDim),
  ];
}

/** Gradients on a backend of attention over the inputs, read and freed. */
async function gradients(backend: string, attention: (...x: Tensor4D[]) => Tensor4D): Promise<ArrayLike<number>[]> {
  await setBackend(backend);
  const [q, k, v, dy] = inputs();
  const found = grads4D(attention)([q, k, v], dy);
  const values = await Promise.all(found.map((x) => x.data()));
  found.forEach((x, i) => expect(x.shape).to.deep.equal([q, k, v][i].shape));
  [q, k, v, dy, ...found].forEach((x) => x.dispose());
  return values;
}

/** By what each query row sees, and what is added to scores; tfjs's own ops do the rest. A row that sees nothing is zeros. */
async function expectComposed(
  backend: string,
  attention: (...x: Tensor4D[]) => Tensor4D,
  sees: (entry: number, head: number, row: number, key: number) => boolean,
  bias?: (key: number) => number,
): Promise<void> {
  const actual = await gradients(backend, attention);
  const seen: number[] = [];
  for (let i = 0; i < batch * heads * queryLength * keyLength; ++i) {
    const row = Math.floor(i / keyLength);
    const head = Math.floor(row / queryLength);
    seen.push(sees(Math.floor(head / heads), head % heads, row % queryLength, i % keyLength) ? 1 : 0);
  }
  const expected = await gradients('cpu', (query, key, value) => {
    const visible = tensor4d(seen, [batch, heads, queryLength, keyLength]);
    const [allKeys, allValues] = [key, value].map((x) => repeatHeads(x, 2));
    let scores = mul(matMul(query, allKeys, false, true), 1 / Math.sqrt(headDim));
    scores = bias ? add(scores, tensor4d(keys(bias), [1, 1, 1, keyLength])) : scores;
    const hidden = where(cast(visible, 'bool'), scores, add(mul(scores, 0), -1e9)) as Tensor4D;
    return matMul(mul(softmax(hidden), visible), allValues) as Tensor4D;
  });
  names.forEach((name, i) => {
    expect(relativeL1(actual[i], expected[i]), `gradient of ${name}`).to.be.below(2e-5);
  });
  await setBackend(backend);
}

const keys = (value: (key: number) => number) => Float32Array.from({length: keyLength}, (_, key) => value(key));

describeAllBackends('gradients of every form of attention against composed attention', (backend) => {
  before(() => setBackend(backend));
  const flash =
    (options: FlashAttentionOptions) =>
    (...[q, k, v]: Tensor4D[]) =>
      flashAttention(q, k, v, options);
  const sizes: PBSAttentionOptions = {blockSize: 4, keyBlockSize: 2, segmentSize: 8, threshold: 0.7, auto: false};

  it('queries that end with the keys, and queries before', async () => {
    await expectComposed(backend, flash({}), (_e, _h, row, key) => key <= keyLength - queryLength + row);
    await expectComposed(backend, flash({queryOffset: 5}), (_e, _h, row, key) => key <= 5 + row);
    await expectComposed(backend, flash({causal: false}), () => true);
  });

  it('key lengths, of which one leaves rows that see nothing', async () => {
    const keyLengths = [33, 0];
    await expectComposed(
      backend,
      flash({keyLengths}),
      (entry, _h, row, key) => key < keyLengths[entry] && key <= 28 + row,
    );
  });

  it('padding that is no number', async () => {
    const keyLengths = [33, 20];
    const isPadding = (i: number, dim: number) => {
      const row = Math.floor(i / dim);
      return row % keyLength >= keyLengths[Math.floor(row / (2 * keyLength))];
    };
    const [q, k, v, dy] = inputs();
    const spoil = async (x: Tensor4D, by: number) => {
      const values = (await x.data()) as Float32Array;
      return tensor4d(
        values.map((value, i) => (isPadding(i, x.shape[3]) ? by : value)),
        x.shape,
      );
    };
    for (const causal of [true, false]) {
      for (const attend of [
        flash({keyLengths, causal}),
        (...[query, key, value]: Tensor4D[]) => pbsAttention(query, key, value, {...sizes, keyLengths, causal}),
      ]) {
        const results: ArrayLike<number>[][] = [];
        for (const by of [0, NaN]) {
          const [keys, values] = [await spoil(k, by), await spoil(v, by)];
          const found = grads4D(attend)([q, keys, values], dy);
          results.push(await Promise.all(found.map((x) => x.data())));
          [keys, values, ...found].forEach((x) => x.dispose());
        }
        names.forEach((name, i) => {
          const [zeros, nans] = results.map((values) => Array.from(values[i]));
          expect(nans, `gradient of ${name}, ${causal ? 'causal' : 'not causal'}`).to.deep.equal(zeros);
        });
      }
    }
    [q, k, v, dy].forEach((x) => x.dispose());
  });

  it('a bool mask and a mask that is added', async () => {
    const kept = (head: number, row: number, key: number) => (3 * head + row + 2 * key) % 5 > 1;
    const values: number[] = [];
    for (let i = 0; i < heads * queryLength * keyLength; ++i) {
      const row = Math.floor(i / keyLength);
      values.push(kept(Math.floor(row / queryLength), row % queryLength, i % keyLength) ? 1 : 0);
    }
    const mask = tensor4d(values, [1, heads, queryLength, keyLength], 'bool');
    await expectComposed(backend, flash({mask, causal: false}), (_e, head, row, key) => kept(head, row, key));
    const bias = tensor4d(
      Float32Array.from({length: keyLength}, (_, i) => Math.sin(i)),
      [1, 1, 1, keyLength],
    );
    await expectComposed(backend, flash({mask: bias}), (_e, _h, row, key) => key <= 28 + row, Math.sin);
    [mask, bias].forEach((x) => x.dispose());
  });

  for (const isGiven of [false, true]) {
    it(`blocks of a chunk with key lengths, ${isGiven ? 'of a plan that is given' : 'planned anew'}`, async () => {
      const keyLengths = [40, 31];
      const [q, k, v, dy] = inputs();
      const plan = pbsAttentionPlan(q, k, {...sizes, keyLengths});
      const indices = (await plan.keyIndices.array()) as number[][][];
      const mask = (await plan.blockMask.array()) as number[][][][];
      const options = isGiven ? {...sizes, keyLengths, plan} : {...sizes, keyLengths};
      await expectComposed(
        backend,
        (...[query, key, value]) => pbsAttention(query, key, value, options),
        (entry, head, row, key) => {
          const keyBlock = Math.floor(indices[entry][head].indexOf(key) / 2);
          const isKept = mask[entry][head][Math.floor(row / 4)][keyBlock];
          return Boolean(isKept) && key <= 28 + row && key < keyLengths[entry];
        },
      );
      [q, k, v, dy, plan.keyIndices, plan.blockMask].forEach((x) => x.dispose());
    });
  }

  it('has no gradient of a mask that is not added or of block-sparse attention, and says so', () => {
    tidy(() => {
      const [q, k, v] = inputs();
      const mask = tensor4d(
        Array.from({length: keyLength}, (_, i) => i % 2),
        [1, 1, 1, keyLength],
        'bool',
      );
      const byMask = grads4D((x) => flashAttention(q, k, v, {mask: x}));
      expect(() => byMask([mask])).to.throw(/Cannot backprop through input mask/);
      // tfjs asks for it after all gradients are computed: GPUs would compile them for nothing else.
      if (backend !== 'cpu') return;
      const ofSparse = grads4D((x) => pbsAttention(q, k, v, {mask: x}));
      expect(() => ofSparse([tensor4d([0.5], [1, 1, 1, 1])])).to.throw(/Cannot backprop through input mask/);
    });
  });

  it('frees what it saved of optional inputs', async () => {
    const [q, k, v, dy] = inputs();
    const before = memory().numTensors;
    grads4D(flash({keyLengths: [33, 20]}))([q, k, v], dy).forEach((x) => x.dispose());
    expect(memory().numTensors).to.equal(before);
    [q, k, v, dy].forEach((x) => x.dispose());
  });
});
