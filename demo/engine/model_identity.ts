import {OPFSStore} from '../../runner/hub/opfs_store';
import {storedIdentity} from '../../runner/hub/stored_identity';
import {version} from '../../src/version';
import type {ModelSource} from './protocol';

/** Tells models apart, as far as their keys and values may be told apart; nothing where that cannot be said. */
export async function identityOf(source: ModelSource): Promise<string | undefined> {
  if ('files' in source) {
    const files = source.files.map(({name, size, lastModified}) => `${name} ${size} ${lastModified}`);
    return files.sort().join('; ');
  }
  if ('url' in source) return `${source.url} ${version}`;
  // The model is there without it.
  return storedIdentity(source.address, new OPFSStore(), source.hub).catch(() => undefined);
}
