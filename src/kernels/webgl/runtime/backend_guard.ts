import type {DataId, TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {releaseKeptTextures, takeLackOfMemory} from './memory.js';

const lostMessage = 'webgl: the context was lost before the values could be read.';

/** Tensors whose values did not come about, and which tfjs has read as zeros. */
const lostValues = new WeakMap<DataId, Error>();
const guarded = new WeakSet<MathBackendWebGL>();

/** A lost context ignores every call: what was drawn since reads as zeros. */
export function throwIfGone(op: string, backend: MathBackendWebGL): void {
  if ((backend as unknown as {disposed: boolean}).disposed) {
    throw new Error(`${op}: the webgl backend was removed, and its tensors with it. Register it anew.`);
  }
  if (backend.gpgpu.gl.isContextLost()) {
    throw new Error(`${op}: the WebGL context was lost. Remove the webgl backend and register it anew.`);
  }
}

/** Throws if what is to be attended to is not there. */
export function throwIfLost(op: string, inputs: object): void {
  for (const [name, input] of Object.entries(inputs as Record<string, TensorInfo | undefined>)) {
    const cause = input && lostValues.get(input.dataId);
    if (cause) throw new Error(`${op}: ${name}: its values were lost: ${cause.message}`, {cause});
  }
}

/**
 * Makes reads of the backend fail where values did not come about, of tfjs's programs as of ours: once the context is lost, and after
 * something found no memory. tfjs's own answer zeros then, or wait for ever for a fence that no longer exists, and an attention
 * that was under way would end in either.
 */
export function guardReads(backend: MathBackendWebGL): void {
  if (guarded.has(backend)) {
    return;
  }
  guarded.add(backend);
  const gl = backend.gpgpu.gl as WebGL2RenderingContext;
  let fail!: (error: Error) => void;
  const lost = new Promise<never>((_, reject) => (fail = reject));
  lost.catch(() => {});
  gl.canvas.addEventListener('webglcontextlost', () => fail(new Error(lostMessage)), {once: true});
  const isOnGPUAlone = (dataId: DataId) => {
    const data = backend.texData.has(dataId) ? backend.texData.get(dataId) : undefined;
    return data !== undefined && data.values == null;
  };
  /** After a read, which tfjs has kept. */
  const throwIfUnread = (dataId: DataId) => {
    // The event comes later than the loss.
    const isLost = gl.isContextLost();
    if (!isLost && !takeLackOfMemory(gl)) return;
    const error = new Error(isLost ? lostMessage : 'webgl: out of memory: the values could not be computed or read.');
    lostValues.set(dataId, error);
    if (!isLost) releaseKeptTextures(backend);
    throw error;
  };
  const read = backend.read.bind(backend);
  backend.read = async (dataId: DataId) => {
    throwIfLost('webgl', {'the tensor': {dataId}});
    if (!isOnGPUAlone(dataId)) return read(dataId);
    throwIfGone('webgl', backend);
    const values = await Promise.race([read(dataId), lost]);
    throwIfUnread(dataId);
    return values;
  };
  const readSync = backend.readSync.bind(backend);
  backend.readSync = (dataId: DataId) => {
    throwIfLost('webgl', {'the tensor': {dataId}});
    if (!isOnGPUAlone(dataId)) return readSync(dataId);
    throwIfGone('webgl', backend);
    const values = readSync(dataId);
    throwIfUnread(dataId);
    return values;
  };
}
