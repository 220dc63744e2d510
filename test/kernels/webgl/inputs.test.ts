import type {Tensor, Tensor2D, Tensor4D} from '@tensorflow/tfjs-core';
import {
  add,
  backend as activeBackend,
  dispose,
  env,
  matMul,
  memory,
  mul,
  reshape,
  setBackend,
  slice,
  tensor2d,
  tensor4d,
  tidy,
  transpose,
} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {expect} from 'chai';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../../src/index';
import {testBackends} from '../../setup/environment';
import {relativeL1} from '../../golden/golden_cases';
import {randomInputs, tensors} from '../../reference/attention';

if (testBackends().includes('webgl')) {
  describe('inputs in the forms in which tfjs keeps tensors [webgl]', () => {
    const options = {blockSize: 16, segmentSize: 32, threshold: 0.75, auto: false};
    const textureOf = (x: Tensor) => (activeBackend() as MathBackendWebGL).texData.get(x.dataId);

    /** A layer of a transformer: projections, heads apart, attention, heads together, projection. */
    function layer(x: Tensor2D, weights: Tensor2D[]): {query: Tensor4D; output: Tensor2D} {
      const heads = 4;
      const [length, width] = x.shape;
      const [query, key, value] = weights
        .slice(0, 3)
        .map((w) => transpose(reshape(matMul(x, w), [1, length, heads, width / heads]), [0, 2, 1, 3]) as Tensor4D);
      const attention = pbsAttention(query, key, value, options);
      const together = reshape(transpose(attention, [0, 2, 1, 3]), [length, width]) as Tensor2D;
      return {query, output: matMul(together, weights[3]) as Tensor2D};
    }

    it('refuses positions that float16 textures would round', async () => {
      await setBackend('webgl');
      const [q, k, v] = tensors(randomInputs({length: 8, keyLength: 2056, headDim: 4}, 62));
      const planned = {blockSize: 16, segmentSize: 32, auto: false};
      const plan = pbsAttentionPlan(q, k, planned);
      const before = memory().numTensors;
      const isFloat32 = env().getBool('WEBGL_RENDER_FLOAT32_ENABLED');
      env().set('WEBGL_RENDER_FLOAT32_ENABLED', false);
      try {
        for (const [run, message] of [
          [() => flashAttention(q, k, v, {keyLengths: [2049]}), /flashAttention: keyLengths: got float16 textures/],
          [() => pbsAttention(q, k, v, {...planned, keyLengths: [2049]}), /pbsAttention: keyLengths: got float16/],
          [() => pbsAttention(q, k, v, {plan}), /pbsAttention: plan: got float16 textures for positions among 2056/],
          [() => pbsAttentionPlan(q, k, planned), /pbsAttentionPlan: key indices: got float16 .* at most 2048 keys/],
        ] as const) {
          expect(run).to.throw(message);
        }
        expect(memory().numTensors).to.equal(before);
      } finally {
        env().set('WEBGL_RENDER_FLOAT32_ENABLED', isFloat32);
      }
      expect(() => tidy(() => pbsAttention(q, k, v, {plan}))).not.to.throw();
      dispose([q, k, v, plan.keyIndices, plan.blockMask]);
    });

    it('takes part in a chain of matMul, reshape, transpose and matMul', async () => {
      const length = 120;
      const width = 64;
      const {query: values} = randomInputs({length: 5 * length, headDim: width}, 61);
      const inputs = Array.from({length: 5}, (_, i) =>
        values.slice(i * length * width, i * length * width + (i === 0 ? length : width) * width),
      );
      const run = async (backend: string) => {
        await setBackend(backend);
        const result = tidy(() => {
          const [x, ...weights] = inputs.map((input) => tensor2d(input, [input.length / width, width]));
          const small = weights.map((w) => mul(w, 0.2) as Tensor2D);
          const {query, output} = layer(x, small);
          if (backend === 'webgl') {
            expect(textureOf(query).isPacked, 'the query is packed').to.equal(true);
          }
          return output;
        });
        return result.data();
      };
      expect(relativeL1(await run('webgl'), await run('cpu'))).to.be.below(1e-4);
      await setBackend('webgl');
    });

    const inputs = randomInputs({heads: 2, length: 70, headDim: 18}, 62);
    const shapeOfAll = [3, 2, 70, 18] as const;

    async function expected(): Promise<ArrayLike<number>> {
      await setBackend('cpu');
      const [q, k, v] = tensors(inputs);
      const values = await pbsAttention(q, k, v, options).data();
      await setBackend('webgl');
      return values;
    }

    it('reads a slice, which shares the texture of its tensor', async () => {
      const wanted = await expected();
      const all = new Float32Array(3 * inputs.query.length);
      [inputs.query, inputs.key, inputs.value].forEach((x, i) => all.set(x, i * x.length));
      const stacked = tensor4d(all, [...shapeOfAll]);
      const [q, k, v] = [0, 1, 2].map((i) => slice(stacked, [i, 0, 0, 0], [1, 2, 70, 18]));
      expect(textureOf(v).slice?.flatOffset, 'the value is a slice of a texture').to.equal(2 * inputs.value.length);
      expect(relativeL1(await pbsAttention(q, k, v, options).data(), wanted)).to.be.below(1e-4);
    });

    it('reads a packed tensor that was reshaped', async () => {
      const wanted = await expected();
      // Of a shape whose packing is not that of four dimensions.
      const packed = (values: Float32Array) => {
        const x = tensor2d(values, [values.length / 9, 9]);
        const y = matMul(
          x,
          tensor2d(
            Float32Array.from({length: 81}, (_, i) => (i % 10 === 0 ? 1 : 0)),
            [9, 9],
          ),
        );
        expect(textureOf(y).isPacked).to.equal(true);
        return reshape(y, inputs.queryShape) as Tensor4D;
      };
      const [q, k, v] = [inputs.query, inputs.key, inputs.value].map(packed);
      expect(relativeL1(await pbsAttention(q, k, v, options).data(), wanted)).to.be.below(1e-4);
    });

    it('reads tensors so small that tfjs would make uniforms of them', async () => {
      await setBackend('webgl');
      const x = tensor4d([5], [1, 1, 1, 1]);
      expect(Array.from(await flashAttention(x, x, x).data())).to.deep.equal([5]);
    });

    it('gives a tensor that other ops can read, packed or not', async () => {
      await setBackend('webgl');
      const [q, k, v] = tensors(inputs);
      const output = pbsAttention(q, k, v, options);
      const twice = await add(output, output).data();
      const rows = await matMul(reshape(output, [140, 18]), tensor2d(new Array(18).fill(1), [18, 1])).data();
      const values = Array.from(await output.data());
      expect(
        relativeL1(
          twice,
          values.map((x) => 2 * x),
        ),
      ).to.be.below(1e-6);
      const sums = Array.from(rows, (_, i) => values.slice(18 * i, 18 * (i + 1)).reduce((a, b) => a + b, 0));
      expect(relativeL1(rows, sums)).to.be.below(1e-5);
    });
  });
}
