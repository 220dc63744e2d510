import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {guardReads, throwIfGone} from './backend_guard.js';
import {releaseKeptTextures} from './memory.js';
import {RowTexturePool} from './row_texture.js';

export interface CompiledProgram {
  program: WebGLProgram;
  locations: Map<string, WebGLUniformLocation | null>;
}

/** What the programs of this folder share on one WebGL context. */
export interface AttentionContext {
  backend: MathBackendWebGL;
  gl: WebGL2RenderingContext;
  maxTextureSize: number;
  /**
   * Draw buffers in use: 8, or 4 where the context has fewer than 8 (WebGL2 has at least 4). A fragment writes as many
   * vectors of four values.
   */
  drawBuffers: 4 | 8;
  pool: RowTexturePool;
  /** Texels that the scores of one round of attention may take, and its running sums: more is done in parts. */
  scratchTexels: number;
  /** Texels that one draw may fetch, about: more is cut into several draws. */
  fetchesPerDraw: number;
  /** Compiled programs by `shaderKey`. */
  programs: Map<string, CompiledProgram>;
  /** While programs are compiled ahead and nothing is drawn: those that were begun, each with what asks whether it compiled. */
  ahead?: Array<{program: WebGLProgram; finish: () => void}>;
  /** For drawing into textures of tfjs. */
  tensorFramebuffer: WebGLFramebuffer;
  /** For drawing without vertex data. */
  vertexArray: WebGLVertexArrayObject;
}

/** 128 MiB. */
const scratchTexels = 2 ** 23;

/**
 * Browsers kill a context whose GPU does not answer for some seconds; the slowest integrated chips fetch some 10⁹ texels a
 * second, so that a draw takes them about a quarter of one.
 */
const fetchesPerDraw = 2 ** 28;

const contexts = new WeakMap<WebGL2RenderingContext, AttentionContext>();

/** @throws Error if the backend's context cannot render float32, or was lost. */
export function attentionContext(op: string, backend: MathBackendWebGL): AttentionContext {
  const gl = backend.gpgpu.gl as WebGL2RenderingContext;
  throwIfGone(op, backend);
  let context = contexts.get(gl);
  if (!context) {
    context = createContext(op, backend, gl);
    contexts.set(gl, context);
    // Where the browser restores it, what was made on it before is gone.
    gl.canvas.addEventListener('webglcontextlost', () => contexts.delete(gl), {once: true});
  }
  // Another backend can have been made on the same canvas.
  context.backend = backend;
  guardReads(backend);
  return context;
}

/** Deletes the textures that nothing uses: ours, and those of tfjs. */
export function releaseKept(backend: MathBackendWebGL): void {
  contexts.get(backend.gpgpu.gl as WebGL2RenderingContext)?.pool.releaseIdle();
  releaseKeptTextures(backend);
}

/** The context of a backend on which `attentionContext` has looked, lost or not. */
export function contextOf({gpgpu}: MathBackendWebGL): AttentionContext {
  return contexts.get(gpgpu.gl as WebGL2RenderingContext)!;
}

function createContext(op: string, backend: MathBackendWebGL, gl: WebGL2RenderingContext): AttentionContext {
  const isWebGL2 = typeof WebGL2RenderingContext !== 'undefined' && gl instanceof WebGL2RenderingContext;
  if (!isWebGL2 || !gl.getExtension('EXT_color_buffer_float')) {
    const got = isWebGL2 ? 'a context without EXT_color_buffer_float' : 'WebGL 1';
    throw new Error(`${op}: backend: got ${got}; takes WebGL 2 that renders float32.`);
  }
  const drawBuffers = Math.min(gl.getParameter(gl.MAX_DRAW_BUFFERS), gl.getParameter(gl.MAX_COLOR_ATTACHMENTS));
  return {
    backend,
    gl,
    maxTextureSize: gl.getParameter(gl.MAX_TEXTURE_SIZE),
    drawBuffers: drawBuffers >= 8 ? 8 : 4,
    scratchTexels,
    fetchesPerDraw,
    pool: new RowTexturePool(gl),
    programs: new Map(),
    tensorFramebuffer: gl.createFramebuffer(),
    vertexArray: gl.createVertexArray(),
  };
}
