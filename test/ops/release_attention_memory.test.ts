import {backend as activeBackend, memory, removeBackend, registerBackend, setBackend} from '@tensorflow/tfjs-core';
import {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {releaseAttentionMemory} from '../../src/index';
import {attentionCalls} from '../faults/attention_calls';
import {describeBackends, testBackends} from '../setup/environment';

/** Textures that a WebGL context makes and deletes meanwhile. */
function textures(gl: WebGL2RenderingContext, body: () => void): {made: number; deleted: number} {
  const counts = {made: 0, deleted: 0};
  const {createTexture, deleteTexture} = gl;
  gl.createTexture = () => (++counts.made, createTexture.call(gl));
  gl.deleteTexture = (texture) => (++counts.deleted, deleteTexture.call(gl, texture));
  try {
    body();
  } finally {
    Object.assign(gl, {createTexture, deleteTexture});
  }
  return counts;
}

describeBackends('releaseAttentionMemory', (backend) => {
  before(() => setBackend(backend));

  it('frees what is kept for later calls, which are right then', async () => {
    const run = attentionCalls['sparse, sampled'];
    const expected = await run();
    const bytes = memory() as unknown as Record<string, number>;
    releaseAttentionMemory();
    if (backend === 'webgpu') {
      const {numBytesInGPU, numBytesAllocatedInGPU} = memory() as unknown as Record<string, number>;
      expect(numBytesAllocatedInGPU).to.equal(numBytesInGPU).and.to.be.below(bytes.numBytesAllocatedInGPU);
      expect((activeBackend() as WebGPUBackend).bufferManager.getNumFreeBuffers()).to.equal(0);
    } else if (backend === 'webgl') {
      expect(bytes.numBytesInGPUFree).to.be.above(0);
      expect(memory()).to.include({numBytesInGPUFree: 0});
    }
    expect(await run()).to.deep.equal(expected);
    releaseAttentionMemory();
  });
});

if (testBackends().includes('webgl')) {
  describe('textures kept for later calls [webgl]', () => {
    const gl = () => (activeBackend() as MathBackendWebGL).gpgpu.gl as WebGL2RenderingContext;
    before(() => setBackend('webgl'));

    it('are freed with tfjs’s own, and go with the backend', async () => {
      const run = attentionCalls['sparse, sampled'];
      releaseAttentionMemory();
      const expected = await run();
      const ofCall = textures(gl(), releaseAttentionMemory);
      expect(ofCall.deleted).to.be.above(20);
      expect(ofCall.made).to.equal(0);
      await run();
      const ofBackend = textures(gl(), () => removeBackend('webgl'));
      expect(ofBackend.deleted).to.be.at.least(ofCall.deleted);
      registerBackend('webgl', () => new MathBackendWebGL(), 2);
      await setBackend('webgl');
      expect(await run()).to.deep.equal(expected);
    });
  });
}
