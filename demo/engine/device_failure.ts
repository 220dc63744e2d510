import {Failure} from '../../runner/failure';
import type {Backend} from '../backend';

/** After a failed read, until a lost device has said so. */
const LOSS_MS = 100;

/**
 * Throws why a computation failed: the signal's reason where it was stopped, what the device has reported, else the error itself.
 */
export async function rethrow(error: unknown, backend: Backend, signal?: AbortSignal): Promise<never> {
  signal?.throwIfAborted();
  await new Promise((resolve) => setTimeout(resolve, LOSS_MS));
  backend.throwIfFailed();
  const {message, cause} = error as Error;
  // So a read ends on WebGPU whose device is gone, though the device has not said so yet.
  if ((cause as Error | undefined)?.name === 'AbortError')
    throw new Failure('DeviceLostError', message, {cause: error});
  throw error;
}
