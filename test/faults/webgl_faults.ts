import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {attentionContext, releaseKept} from '../../src/kernels/webgl/runtime/context';
import {countedFault} from './counted_fault';
import type {FaultLayer} from './fail_each';

const glOf = (backend: MathBackendWebGL) => backend.gpgpu.gl as WebGL2RenderingContext;

/** Makes the n-th call of some function of a context fail as the context itself would make it fail. */
export const webglFaults: Record<string, (backend: MathBackendWebGL) => FaultLayer> = {
  'texture of tfjs': (backend) => withoutMemory(backend, 'texStorage2D'),
  'texture of rows': (backend) => withoutMemory(backend, 'texStorage3D'),
  'buffer of a read': (backend) => withoutMemory(backend, 'bufferData'),
  program: (backend) => ({
    ...countedFault(
      glOf(backend),
      'linkProgram',
      () => {},
      () => attentionContext('test', backend).programs.clear(),
    ),
  }),
};

/** A function that allocates nothing, and the error that the context says then. */
function withoutMemory(backend: MathBackendWebGL, name: 'texStorage2D' | 'texStorage3D' | 'bufferData'): FaultLayer {
  const gl = glOf(backend);
  let isMissing = false;
  const fault = countedFault<string, Record<string, (...args: never[]) => unknown>>(
    gl as never,
    name,
    () => void (isMissing = true),
    () => {
      // Of a call that finds nothing of those before it.
      releaseKept(backend);
      const {getError} = gl;
      gl.getError = () => {
        const error = isMissing ? gl.OUT_OF_MEMORY : getError.call(gl);
        isMissing = false;
        return error;
      };
    },
  );
  return {
    ...fault,
    disarm() {
      fault.disarm();
      delete (gl as {getError?: unknown}).getError;
    },
  };
}
