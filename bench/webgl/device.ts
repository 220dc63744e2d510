import '@tensorflow/tfjs-backend-webgl';
import {backend, dispose, ready, setBackend, tensor4d} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {computed} from '../../runner/llama/layer_progress';
import {flashAttention} from '../../src/index';
import {attentionContext} from '../../src/internal';
import type {Device, SizeLimit} from '../device';
import {timePrograms} from './draw_timing';

/**
 * Largest score matrix that is tried. tfjs holds about six of its size at once (products, scaled, masked, and those of
 * the softmax), and a context out of memory gives wrong values without an error.
 */
const LARGEST_SCORES: SizeLimit = {
  bytes: 2 ** 29,
  reason: 'the 0.5 GiB that is tried on WebGL: tfjs holds about six textures of this size at once',
};

/** How long a new context must last before it is measured. */
const FIRST_MS = 500;

/**
 * Runs tfjs's webgl backend and tries it.
 *
 * @throws Error if it does not work, or its context is lost at once, which happens while a GPU process starts.
 */
export async function openWebGL(): Promise<Device> {
  if (!(await setBackend('webgl'))) throw new Error('tfjs cannot initialise its webgl backend');
  await ready();
  for (const start = performance.now(); performance.now() - start < FIRST_MS;) {
    await tryAttention();
  }
  const webgl = backend() as MathBackendWebGL;
  const {gl, maxTextureSize, drawBuffers} = attentionContext('bench', webgl);
  // tfjs keeps one value a texel, or four.
  const texture = {bytes: 4 * maxTextureSize ** 2, reason: `a texture of ${maxTextureSize} x ${maxTextureSize}`};
  const errors: string[] = [];
  gl.canvas.addEventListener('webglcontextlost', () => errors.push('the WebGL context was lost'));
  return {
    about: {
      backend: 'webgl',
      adapter: rendererName(gl),
      features: [],
      limits: {
        'max texture size': maxTextureSize,
        'draw buffers': gl.getParameter(gl.MAX_DRAW_BUFFERS) as number,
        'draw buffers in use': drawBuffers,
      },
    },
    errors,
    timer: {
      // tfjs asks every 4 ms or so whether a read is done.
      shortestMs: 120,
      warmUpMs: 250,
      finish: async (last) => {
        await computed(last);
        const error = gl.getError();
        if (error !== gl.NO_ERROR) errors.push(`WebGL error 0x${error.toString(16)}`);
      },
      timePrograms: (call, seconds) => timePrograms(webgl, call, seconds),
    },
    // tfjs computes in float32 here, or in float16 throughout, which is not a choice of a call.
    precisions: ['float32'],
    whyNot: () => undefined,
    tensorLimit: texture,
    scoreLimit: texture.bytes < LARGEST_SCORES.bytes ? texture : LARGEST_SCORES,
    longest: 32_768,
  };
}

/** A lone token attends to itself, so its output is its value. */
async function tryAttention(): Promise<void> {
  const value = tensor4d([1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 1, 8]);
  const output = flashAttention(value, value, value);
  try {
    const [expected, got] = await Promise.all([value.data(), output.data()]);
    if (expected.some((x, i) => !(Math.abs(x - got[i]) < 1e-3))) {
      throw new Error(`the first attention gave ${[...got].join(' ')} for ${[...expected].join(' ')}`);
    }
  } finally {
    dispose([value, output]);
  }
}

function rendererName(gl: WebGL2RenderingContext): string {
  const extension = gl.getExtension('WEBGL_debug_renderer_info');
  return String(gl.getParameter(extension ? extension.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
}
