import {drainErrors} from './memory.js';

/**
 * Float32 values as the stages of this folder pass them on: rows of `columns` values in a texture of our own, four
 * consecutive values a texel, so that a fragment reads a vector of a query or key at a time. tfjs's own textures hold one
 * value a texel, or 2 × 2 values of two rows.
 *
 * A row runs down the texture, and `2 ** shift` rows stand side by side in a band, as many as make the texture about
 * square, if there are so many: so the number of rows is not limited by one side of a texture, and fragments of neighbouring rows, which run
 * together, fetch neighbouring texels (rows along the lines took 1.6 times as long, docs/performance.md). Layers hold
 * further values of the same texel: what one fragment writes through several draw buffers.
 *
 * Whole numbers (key indices, block lists) are exact up to 2²⁴; places in a texture are computed in 32-bit integers.
 */
export interface RowLayout {
  rows: number;
  /** Values a row. */
  columns: number;
  /** Texels a row: `columns / 4`, rounded up. */
  texels: number;
  layers: number;
  shift: number;
  width: number;
  height: number;
}

export interface RowShape {
  rows: number;
  columns: number;
  layers?: number;
}

export interface RowTexture extends RowLayout {
  texture: WebGLTexture;
  /** Draws into all layers, layer i through draw buffer i. */
  framebuffer: WebGLFramebuffer;
}

/** Where the rows stand in a texture; `undefined` if no texture of that size exists. */
export function rowLayout({rows, columns, layers = 1}: RowShape, maxTextureSize: number): RowLayout | undefined {
  const texels = Math.ceil(columns / 4);
  const sides = (shift: number) => ({width: 2 ** shift, height: Math.ceil(rows / 2 ** shift) * texels});
  let shift = 0;
  const canWiden = (width: number) => width < rows && 2 * width <= maxTextureSize;
  while (sides(shift).width < sides(shift).height && canWiden(sides(shift).width)) {
    ++shift;
  }
  const {width, height} = sides(shift);
  const fits = width <= maxTextureSize && height <= maxTextureSize;
  return fits ? {rows, columns, texels, layers, shift, width, height} : undefined;
}

/** Bytes of textures that are kept for the next call although nothing uses them, at the least. */
const leastIdleBytes = 256 * 2 ** 20;

/**
 * Allocates textures and keeps those given back for the next request of the same size, as many as a call has had at once. Without this every call would
 * allocate anew, and textures of calls that the GPU has not finished would pile up.
 */
export class RowTexturePool {
  private idle: RowTexture[] = [];
  private used = 0;
  private usedBytes = 0;
  /** Most that were used at once since none was. */
  private mostUsedBytes = 0;

  constructor(private readonly gl: WebGL2RenderingContext) {}

  /** Textures that are given out. */
  get inUse(): number {
    return this.used;
  }

  /** @throws Error if the GPU has no memory left; `what` names the values. */
  acquire(layout: RowLayout, what: string): RowTexture {
    const {width, height, layers} = layout;
    const found = this.idle.findIndex((x) => x.width === width && x.height === height && x.layers === layers);
    const texture = found >= 0 ? this.idle.splice(found, 1)[0] : this.allocate(layout, what);
    this.mostUsedBytes = Math.max(this.used === 0 ? 0 : this.mostUsedBytes, (this.usedBytes += byteSize(layout)));
    ++this.used;
    return {...layout, texture: texture.texture, framebuffer: texture.framebuffer};
  }

  release(texture: RowTexture): void {
    --this.used;
    this.usedBytes -= byteSize(texture);
    this.idle.push(texture);
    this.releaseIdle(Math.max(leastIdleBytes, this.mostUsedBytes) - this.usedBytes);
  }

  /** Deletes textures that nothing uses, the oldest first, until the others take no more bytes than given. */
  releaseIdle(most = 0): void {
    let bytes = this.idle.reduce((sum, x) => sum + byteSize(x), 0);
    while (bytes > most) {
      const oldest = this.idle.shift()!;
      bytes -= byteSize(oldest);
      this.gl.deleteFramebuffer(oldest.framebuffer);
      this.gl.deleteTexture(oldest.texture);
    }
  }

  private allocate({width, height, layers}: RowLayout, what: string): Pick<RowTexture, 'texture' | 'framebuffer'> {
    const {gl} = this;
    // Errors of others must not be taken for ours.
    drainErrors(gl);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.RGBA32F, width, height, layers);
    for (const [name, value] of [
      [gl.TEXTURE_MIN_FILTER, gl.NEAREST],
      [gl.TEXTURE_MAG_FILTER, gl.NEAREST],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE],
      [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
    ]) {
      gl.texParameteri(gl.TEXTURE_2D_ARRAY, name, value);
    }
    const framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    const attachments = Array.from({length: layers}, (_, layer) => gl.COLOR_ATTACHMENT0 + layer);
    attachments.forEach((attachment, layer) => {
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, attachment, texture, 0, layer);
    });
    gl.drawBuffers(attachments);
    const status = gl.checkFramebufferStatus(gl.FRAMEBUFFER);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, null);
    const error = gl.getError();
    if (status !== gl.FRAMEBUFFER_COMPLETE || error !== gl.NO_ERROR) {
      gl.deleteFramebuffer(framebuffer);
      gl.deleteTexture(texture);
      const reason = error === gl.OUT_OF_MEMORY ? 'out of memory' : `error ${error}, framebuffer status ${status}`;
      const bytes = byteSize({width, height, layers});
      throw new Error(`${what}: no texture of ${width} x ${height} x ${layers} (${bytes} bytes): ${reason}.`);
    }
    return {texture, framebuffer};
  }
}

function byteSize({width, height, layers}: Pick<RowLayout, 'width' | 'height' | 'layers'>): number {
  return 16 * width * height * layers;
}
