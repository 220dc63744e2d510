/**
 * Fails the test during which the device reports an error that nobody caught. WebGPU answers a broken shader or bind
 * group with zeros and this event alone; a test that happens to expect little would pass.
 */
export function watchDevice(device: GPUDevice): void {
  const errors: string[] = [];
  device.addEventListener('uncapturederror', (event) => {
    errors.push((event as GPUUncapturedErrorEvent).error.message);
  });
  (globalThis as {uncapturedErrors?: string[]}).uncapturedErrors = errors;
}
