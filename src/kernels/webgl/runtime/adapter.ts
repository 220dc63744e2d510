import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {DeviceDescription} from '../../../attention/device_costs.js';
import {deviceClassOf} from '../../../attention/device_costs.js';

const described = new WeakMap<WebGLRenderingContext, DeviceDescription>();

/** The renderer of a backend's context. */
export function describeAdapter({gpgpu: {gl}}: MathBackendWebGL): DeviceDescription {
  let description = described.get(gl);
  if (!description) {
    const extension = gl.getExtension('WEBGL_debug_renderer_info');
    const renderer: unknown = gl.getParameter(extension ? extension.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
    const adapter = typeof renderer === 'string' && renderer !== '' ? renderer : 'unnamed';
    description = {adapter, deviceClass: deviceClassOf(adapter)};
    described.set(gl, description);
  }
  return description;
}
