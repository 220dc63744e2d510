import type {Tensor4D} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {expect} from 'chai';
import {flashAttention} from '../../src/index';
import {testBackends} from '../environment';
import {relativeL1} from '../golden_cases';
import {composedAttention, randomInputs, tensors} from '../reference';

if (testBackends().includes('webgl')) {
  describe('decoding [webgl]', () => {
    before(() => setBackend('webgl'));

    /** Draws of this package: tfjs's own are of elements. */
    function countDraws(run: () => Tensor4D): [output: Tensor4D, draws: number] {
      const {gl} = (activeBackend() as MathBackendWebGL).gpgpu;
      const draw = gl.drawArrays.bind(gl);
      let draws = 0;
      gl.drawArrays = (...args) => {
        ++draws;
        draw(...args);
      };
      try {
        return [run(), draws];
      } finally {
        gl.drawArrays = draw;
      }
    }

    it('draws seven times for a token over 4,096 keys', async () => {
      const [q, k, v] = tensors(randomInputs({heads: 2, keyValueHeads: 1, length: 1, keyLength: 4096, headDim: 8}, 81));
      const [output, draws] = countDraws(() => flashAttention(q, k, v));
      // Query, key and value into rows; scores, their statistics, weighted values; the output.
      expect(draws).to.equal(7);
      expect(relativeL1(await output.data(), await composedAttention(q, k, v).data())).to.be.below(1e-4);
    });
  });
}
