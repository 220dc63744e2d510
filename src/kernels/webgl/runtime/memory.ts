import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';

/** Contexts that had no memory for something, which nobody was told of. */
const lackedMemory = new WeakSet<WebGL2RenderingContext>();

/** Takes away the errors of what was done before. Reading them waits for the GPU process. */
export function drainErrors(gl: WebGL2RenderingContext): void {
  let error: number;
  do {
    error = gl.getError();
    if (error === gl.OUT_OF_MEMORY) lackedMemory.add(gl);
  } while (error !== gl.NO_ERROR && error !== gl.CONTEXT_LOST_WEBGL);
}

/** Whether there was no memory for something since the last time that this was asked. */
export function takeLackOfMemory(gl: WebGL2RenderingContext): boolean {
  drainErrors(gl);
  return lackedMemory.delete(gl);
}

/** tfjs's own, private in its types. */
interface TextureManager {
  freeTextures: Record<string, Array<{texture: WebGLTexture}>> | null;
  numFreeTextures: number;
  numBytesAllocated: number;
  _numBytesAllocated: number;
  _numBytesFree: number;
}

const managerOf = (backend: MathBackendWebGL) =>
  (backend as unknown as {textureManager: TextureManager}).textureManager;

/** Deletes the textures that tfjs keeps for later: those without memory are among them after a lack of it. */
export function releaseKeptTextures(backend: MathBackendWebGL): void {
  const manager = managerOf(backend);
  for (const textures of Object.values(manager.freeTextures ?? {})) {
    textures.splice(0).forEach(({texture}) => backend.gpgpu.deleteMatrixTexture(texture));
  }
  manager.numFreeTextures = 0;
  manager._numBytesAllocated -= manager._numBytesFree;
  manager._numBytesFree = 0;
}

/**
 * Runs what makes textures of tfjs, which does not look whether there was memory for them: draws into those without are ignored.
 *
 * @param shape of the tensor that is made, or put into a texture.
 * @param undo what gives the textures back.
 * @throws Error if there was none.
 */
export function withMemory<T>(backend: MathBackendWebGL, shape: number[], make: () => T, undo: (made: T) => void): T {
  const manager = managerOf(backend);
  const before = manager.numBytesAllocated;
  const made = make();
  if (manager.numBytesAllocated > before && takeLackOfMemory(backend.gpgpu.gl as WebGL2RenderingContext)) {
    undo(made);
    releaseKeptTextures(backend);
    throw new Error(`webgl: no texture for a tensor of [${shape}]: out of memory.`);
  }
  return made;
}
