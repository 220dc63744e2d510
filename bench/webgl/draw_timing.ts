import {dispose, type TensorInfo, tidy} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {type AttentionContext, attentionContext, DrawnProgram} from '../../src/internal';
import type {Call, ProgramTiming} from '../device';
import {median, timing} from '../statistics';

const LEAST_REPEATS = 3;
const MOST_REPEATS = 10;

/**
 * Time of each program of a call, in milliseconds, by waiting for the GPU after each of its draws: most browsers give no
 * timestamps in WebGL. A wait with nothing to wait for is subtracted; what the processor does for a draw is not, and draws
 * that would overlap do not.
 *
 * @param seconds about how long to take.
 */
export async function timePrograms(backend: MathBackendWebGL, call: Call, seconds: number): Promise<ProgramTiming[]> {
  const context = attentionContext('bench', backend);
  // Compiles, and leaves nothing behind that the first wait would count.
  timeDraws(context, call);
  const start = performance.now();
  const repeats: Array<Map<string, number>> = [];
  while (
    repeats.length < LEAST_REPEATS ||
    (repeats.length < MOST_REPEATS && performance.now() - start < 1000 * seconds)
  ) {
    repeats.push(timeDraws(context, call));
    // Lets the page do what waits meanwhile.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return [...repeats[0].keys()].map((program) => ({
    program,
    gpu: timing(
      repeats.map((repeat) => repeat.get(program)!),
      1,
    ),
  }));
}

/** Runs a call once and adds up the time of each program, by the name of its class. */
function timeDraws(context: AttentionContext, call: Call): Map<string, number> {
  const draws: Array<{program: string; ms: number}> = [];
  const emptyWaits: number[] = [];
  const restore = wrapDraws(context, (program, draw, wait) => {
    const start = performance.now();
    const drawn = draw();
    wait(drawn);
    const end = performance.now();
    wait(drawn);
    emptyWaits.push(performance.now() - end);
    draws.push({program, ms: end - start});
    return drawn;
  });
  try {
    dispose(tidy(call));
  } finally {
    restore();
  }
  const emptyWait = emptyWaits.length > 0 ? median(emptyWaits) : 0;
  const byProgram = new Map<string, number>();
  for (const {program, ms} of draws) {
    byProgram.set(program, (byProgram.get(program) ?? 0) + ms - emptyWait);
  }
  // The wait of a tiny program can be shorter than an empty one was.
  byProgram.forEach((ms, program) => byProgram.set(program, Math.max(0, ms)));
  return byProgram;
}

/** Runs `draw`; `wait` takes what it returned and ends when the GPU is done with it. */
type AroundDraw = <T>(program: string, draw: () => T, wait: (drawn: T) => void) => T;

/** Puts `around` around every draw, of our programs and of those of tfjs; gives back what undoes it. */
function wrapDraws({backend, gl, tensorFramebuffer}: AttentionContext, around: AroundDraw): () => void {
  const prototype: DrawnProgram<object> = DrawnProgram.prototype;
  const {draw, drawTensor} = prototype;
  const waitForTexture = (texture: WebGLTexture) => {
    gl.bindFramebuffer(gl.FRAMEBUFFER, tensorFramebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    readPixel(gl);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, null, 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  };
  prototype.draw = function (...args) {
    const waitForRows = () => {
      gl.bindFramebuffer(gl.FRAMEBUFFER, args[1].framebuffer);
      readPixel(gl);
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    };
    around(this.constructor.name, () => draw.apply(this, args), waitForRows);
  };
  prototype.drawTensor = function (...args) {
    const wait = () => waitForTexture(args[1].texture);
    around(this.constructor.name, () => drawTensor.apply(this, args), wait);
  };
  // An input that is packed is unpacked by a program of tfjs.
  const runWebGLProgram = backend.runWebGLProgram;
  backend.runWebGLProgram = function (...args): TensorInfo {
    const wait = ({dataId}: TensorInfo) => {
      const {texture} = backend.texData.get(dataId);
      if (texture) waitForTexture(texture.texture);
    };
    return around(`tfjs ${args[0].constructor.name}`, () => runWebGLProgram.apply(this, args), wait);
  };
  return () => {
    prototype.draw = draw;
    prototype.drawTensor = drawTensor;
    backend.runWebGLProgram = runWebGLProgram;
  };
}

const pixel = new Float32Array(4);

/** Unlike a fence, answers as soon as the GPU is done with what is bound. */
function readPixel(gl: WebGL2RenderingContext): void {
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.FLOAT, pixel);
}
