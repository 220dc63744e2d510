import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import {runWithScratch} from '../../../attention/scratch.js';
import {unroll} from '../../unroll.js';
import type {AttentionContext, CompiledProgram} from './context.js';
import {divide, rowInput, rowMain, tensorInput, tensorMain} from './fragment_shader.js';
import type {RowShape, RowTexture} from './row_texture.js';
import {rowLayout} from './row_texture.js';

/** A tensor's texture as tfjs keeps it when it is not packed: one value a texel, line after line. */
export interface TensorTexture {
  texture: WebGLTexture;
  width: number;
  height: number;
  /** Values before the first: a slice shares its tensor's texture. */
  offset: number;
  /** Values. */
  size: number;
}

type Texture = RowTexture | TensorTexture;

/** Scalars of a shader that may change without a new one. */
export type Uniforms = Record<string, number>;

/** What a fragment program needs beyond its shader. */
export interface ProgramSpec<Variant> {
  /** What it computes: tells its shaders apart from those of other programs. */
  name: string;
  /** Textures by their names in the shader. */
  inputs: Record<string, Texture>;
  /** Its sizes are uniforms as well. */
  geometry?: BlockGeometry;
  /** Uniforms of type int, declared where the shader names them. */
  uniforms?: Uniforms;
  /** Uniforms of type float. */
  floats?: Uniforms;
  /** What `run` makes: rows of values, each layer written as `result0`, `result1`, … Not needed where a tensor is drawn. */
  output?: RowShape;
  /** Everything that changes the text of the shader. */
  variant: Variant;
  /** Texels that a fragment fetches at most, about: what decides how much goes into one draw. */
  fetches: number;
}

/**
 * Base of the programs of this folder. A subclass is named after what it computes and writes its shader from its variant
 * alone: the function `compute`, which a fragment runs for its own texel, and which writes `result0`, …
 *
 * For an input `key` of rows the shader may call `readKey(row, texel)`; or, in loops, `keyAt(row)` once and then
 * `fetchKey(at, texel, layer)`. For an input that is a tensor it may call `readKey(i)`.
 */
export abstract class AttentionProgram<Variant extends object> {
  protected constructor(private readonly spec: ProgramSpec<Variant>) {}

  /** Defines `void compute(int row, int texel)`, or `void compute(int index)` where a tensor is drawn. */
  protected abstract shader(variant: Variant): string;

  /** Tells shaders apart: their texts depend on nothing else. */
  shaderKey(target: 'tensor' | 'rows' = 'rows'): string {
    const {name, inputs, variant} = this.spec;
    return `${name} ${JSON.stringify(variant)} ${Object.keys(inputs)} ${target}`;
  }

  /** The whole fragment shader. */
  source(target: 'tensor' | 'rows' = 'rows'): string {
    const {inputs, geometry, uniforms, floats = {}, variant, output} = this.spec;
    const body = this.shader(variant).trim();
    const isNamed = (name: string) => new RegExp(`\\b${name}\\b`).test(body);
    const ints = Object.keys({...geometry, ...uniforms}).filter(isNamed);
    const declared = [
      ...ints.map((name) => `uniform int ${name};`),
      ...Object.keys(floats).map((name) => `uniform float ${name};`),
    ];
    return `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;
${divide}
${Object.entries(inputs)
  .map(([name, texture]) => ('rows' in texture ? rowInput(name) : tensorInput(name)))
  .join('\n')}
${declared.join('\n')}
${unroll(output?.layers ?? 1, (i) => `layout(location = ${i}) out vec4 result${i};`, '\n')}
${body}

${target === 'tensor' ? tensorMain : rowMain}`;
  }

  /** Draws into a new texture, which is the caller's to release. */
  run(context: AttentionContext): RowTexture {
    return withScratch(context, (_, keep) => this.drawInto(context, undefined, keep));
  }

  /** Draws rows `[firstRow, endRow)` of `target`, or of a new texture, which it hands to `take` first. */
  drawInto(
    context: AttentionContext,
    target: RowTexture | undefined,
    take: Take<RowTexture>,
    ...rows: [firstRow: number, endRow: number] | []
  ): RowTexture {
    const texture = target ?? take(this.allocate(context));
    this.draw(context, texture, ...rows);
    return texture;
  }

  private allocate({maxTextureSize, pool}: AttentionContext): RowTexture {
    const {name, output} = this.spec;
    const layout = rowLayout(output!, maxTextureSize);
    if (!layout) {
      throw new Error(`${name}: ${output!.rows} rows of ${output!.columns} values do not fit a texture.`);
    }
    return pool.acquire(layout, name);
  }

  /** Draws rows `[firstRow, endRow)` of a texture and leaves the others. */
  draw(context: AttentionContext, target: RowTexture, firstRow = 0, endRow = target.rows): void {
    if (this.isCompiledAhead(context, 'rows')) return;
    const {gl} = context;
    const set = this.bind(context, 'rows');
    set('outShift', target.shift);
    set('outTexels', target.texels);
    set('firstRow', firstRow);
    set('endRow', endRow);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    const firstBand = firstRow >> target.shift;
    const endBand = Math.ceil(endRow / 2 ** target.shift);
    this.drawTimed(context, target.width, firstBand * target.texels, endBand * target.texels);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  /** Draws a tensor's texture. */
  drawTensor(context: AttentionContext, {texture, width, height, size}: TensorTexture): void {
    if (this.isCompiledAhead(context, 'tensor')) return;
    const {gl} = context;
    const set = this.bind(context, 'tensor');
    set('outWidth', width);
    set('outSize', size);
    gl.bindFramebuffer(gl.FRAMEBUFFER, context.tensorFramebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    try {
      this.drawTimed(context, width, 0, height);
    } finally {
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, null, 0);
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    }
  }

  /** Makes the program current with its inputs; gives a function that sets the remaining uniforms, all int. */
  private bind(context: AttentionContext, target: 'tensor' | 'rows'): (name: string, value: number) => void {
    const {gl} = context;
    const {inputs, geometry, uniforms, floats = {}} = this.spec;
    const {program, locations} = this.compiled(context, target);
    const location = (name: string) => {
      if (!locations.has(name)) {
        locations.set(name, gl.getUniformLocation(program, name));
      }
      return locations.get(name)!;
    };
    const set = (name: string, value: number) => gl.uniform1i(location(name), value);
    gl.useProgram(program);
    gl.bindVertexArray(context.vertexArray);
    Object.entries(inputs).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      set(name, unit);
      if ('rows' in texture) {
        gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture.texture);
        set(`${name}Shift`, texture.shift);
        set(`${name}Texels`, texture.texels);
      } else {
        gl.bindTexture(gl.TEXTURE_2D, texture.texture);
        set(`${name}Width`, texture.width);
        set(`${name}Offset`, texture.offset);
      }
    });
    // One that the shader does not name has no location, and setting it does nothing.
    Object.entries({...geometry, ...uniforms}).forEach(([name, value]) => set(name, value));
    Object.entries(floats).forEach(([name, value]) => gl.uniform1f(location(name), value));
    return set;
  }

  private compiled(context: AttentionContext, target: 'tensor' | 'rows'): CompiledProgram {
    const key = this.shaderKey(target);
    let compiled = context.programs.get(key);
    if (!compiled) {
      const begun = beginCompiling(context.gl, this.spec.name, this.source(target));
      begun.finish();
      compiled = {program: begun.program, locations: new Map()};
      context.programs.set(key, compiled);
    }
    return compiled;
  }

  /** Begins to compile instead of drawing, where that is wanted. A draw meanwhile compiles its own. */
  private isCompiledAhead({ahead, gl, programs}: AttentionContext, target: 'tensor' | 'rows'): boolean {
    const key = this.shaderKey(target);
    if (ahead && !programs.has(key)) {
      const {program, finish} = beginCompiling(gl, this.spec.name, this.source(target));
      ahead.push({
        program,
        finish: () => {
          finish();
          if (programs.has(key)) gl.deleteProgram(program);
          else programs.set(key, {program, locations: new Map()});
        },
      });
    }
    return ahead !== undefined;
  }

  /** Draws lines, and tells their time where `tf.time` or `tf.profile` asks, as tfjs does for its own programs. */
  private drawTimed(context: AttentionContext, ...lines: [width: number, first: number, end: number]): void {
    const timers = context.backend as unknown as Timers;
    const query = timers.activeTimers && timers.startTimer();
    this.drawLines(context, ...lines);
    if (query) timers.activeTimers!.push({name: this.spec.name, query: timers.getQueryTime(timers.endTimer(query))});
  }

  /** Draws lines `[first, end)`, cut into draws that no watchdog minds. */
  private drawLines({gl, fetchesPerDraw}: AttentionContext, width: number, first: number, end: number): void {
    const linesPerDraw = Math.max(1, Math.floor(fetchesPerDraw / (width * this.spec.fetches)));
    for (let line = first; line < end; line += linesPerDraw) {
      const lines = Math.min(linesPerDraw, end - line);
      // The triangle covers the viewport; the scissor, which tfjs leaves on, must not cut it.
      gl.viewport(0, line, width, lines);
      gl.scissor(0, line, width, lines);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
      if (end - first > linesPerDraw) {
        // Each draw goes to the GPU by itself, not all of them as one long piece of work.
        gl.flush();
      }
    }
    gl.bindVertexArray(null);
  }
}

/** Private in tfjs's types: of each program that is timed its name and, in milliseconds, its time. */
interface Timers {
  activeTimers?: Array<{name: string; query: Promise<number>}>;
  startTimer(): object;
  endTimer(query: object): object;
  getQueryTime(query: object): Promise<number>;
}

/** One triangle that covers the viewport. */
const vertexShader = `#version 300 es
void main() {
  gl_Position = vec4(float(gl_VertexID & 1) * 4.0 - 1.0, float(gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0);
}
`;

/** Compiles and links; `finish` waits for it, and throws if it failed. */
function beginCompiling(
  gl: WebGL2RenderingContext,
  name: string,
  source: string,
): {program: WebGLProgram; finish: () => void} {
  const program = gl.createProgram();
  const shaders = [
    [gl.VERTEX_SHADER, vertexShader],
    [gl.FRAGMENT_SHADER, source],
  ].map(([type, text]) => {
    const shader = gl.createShader(type as number)!;
    gl.shaderSource(shader, text as string);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    return shader;
  });
  gl.linkProgram(program);
  const finish = () => {
    const linked = gl.getProgramParameter(program, gl.LINK_STATUS) as boolean;
    const log = linked ? '' : [gl.getProgramInfoLog(program), ...shaders.map((x) => gl.getShaderInfoLog(x))].join('\n');
    shaders.forEach((shader) => gl.deleteShader(shader));
    if (!linked) {
      gl.deleteProgram(program);
      throw new Error(`${name}: the shader does not compile: ${log}`);
    }
  };
  return {program, finish};
}

/** Runs `body` and gives back the textures that it hands to `scratch`, and those of `keep` if it throws. */
export function withScratch<T>(
  {pool}: AttentionContext,
  body: (scratch: Take<RowTexture>, keep: Take<RowTexture>) => T,
): T {
  return runWithScratch((texture: RowTexture) => pool.release(texture), body);
}
