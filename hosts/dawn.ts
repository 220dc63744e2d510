import {createRequire} from 'node:module';
import {registerWebGPUBackend} from '../src/webgpu';

/**
 * Gives Node a `navigator.gpu`: Dawn, from the `webgpu` package or from the path in `DAWN`. Without a GPU,
 * `VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json` runs it in software.
 */
export function openDawn(): void {
  const load = createRequire(import.meta.url);
  const dawn = load(process.env.DAWN ?? 'webgpu') as typeof import('webgpu');
  Object.assign(globalThis, dawn.globals);
  // Experimental features, and float16, which Dawn withholds on NVIDIA's driver otherwise.
  const gpu = dawn.create(['enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia']);
  Object.defineProperty(globalThis, 'navigator', {value: {gpu}, configurable: true});
}

/** Registers the webgpu backend of tfjs in Node, with all features of the adapter. */
export async function registerDawnBackend(): Promise<GPUDevice> {
  openDawn();
  return registerWebGPUBackend();
}
