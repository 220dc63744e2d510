/** Backends that the demo can run on, fastest first. */
export const BACKEND_NAMES = ['webgpu', 'webgl', 'cpu'] as const;

export type BackendName = (typeof BACKEND_NAMES)[number];

export function isBackendName(name: string): name is BackendName {
  return (BACKEND_NAMES as readonly string[]).includes(name);
}
