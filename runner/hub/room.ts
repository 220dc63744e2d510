import type {ModelStore} from './store';

/** @throws Error before a download that cannot end well. */
export async function checkRoom(store: Pick<ModelStore, 'room'>, bytes: number, what: string): Promise<void> {
  const room = await store.room();
  if (room === undefined || bytes <= room) return;
  throw new Error(
    `${what}: ${megabytes(bytes)} are to be stored and ${megabytes(room)} are free; delete stored models or free space`,
  );
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
