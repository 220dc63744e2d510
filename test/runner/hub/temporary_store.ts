import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {FolderStore} from '../../../runner/hub/folder_store';

/** A store in a folder that goes after the test. */
export function temporaryStore(): {store: FolderStore; remove(): void} {
  const path = mkdtempSync(join(tmpdir(), 'pbs-hub-'));
  return {store: new FolderStore(path), remove: () => rmSync(path, {recursive: true, force: true})};
}

/** Bytes that are different everywhere, so that none can stand in another's place. */
export function someBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  let state = seed;
  return Uint8Array.from({length}, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
}
