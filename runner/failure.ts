/** Names of errors that the page knows what to say about; any other error is a fault of the program. */
export type FailureName =
  | 'AbortError'
  | 'BackendError'
  | 'DeviceLostError'
  | 'OutOfMemoryError'
  | 'CheckpointError'
  | 'DownloadError'
  | 'TextTooShortError'
  | 'ContextTooLongError'
  | 'PromptError';

/** An error that the page knows what to say about; its name survives the way from the worker. */
export class Failure extends Error {
  override readonly name: FailureName;

  constructor(name: FailureName, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = name;
  }
}

/** Runs something; whatever it throws comes out under the given name, with the same words. */
export async function failAs<T>(name: FailureName, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw new Failure(name, (error as Error).message, {cause: error});
  }
}
