/**
 * Fails the test during which the WebGPU device reports an error that nobody caught. WebGPU answers a broken shader or
 * bind group with zeros and this event alone, so a test that expects little would pass.
 */
export function failOnDeviceErrors(device: () => Promise<GPUDevice>): void {
  const errors: string[] = [];
  let watched: GPUDevice;

  before(async function () {
    this.timeout(60_000);
    watched = await device();
    watched.addEventListener('uncapturederror', ({error}) => errors.push(error.message));
    void watched.lost.then(({message, reason}) => {
      if (reason !== 'destroyed') {
        errors.push(`device lost: ${message}`);
      }
    });
  });

  afterEach(async () => {
    await watched.queue.onSubmittedWorkDone();
    if (errors.length > 0) {
      throw new Error(`uncapturederror: ${errors.splice(0).join('\n')}`);
    }
  });
}
