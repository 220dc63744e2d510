import {formatModelAddress, HUGGING_FACE, parseModelAddress} from './model_address';
import {findStored, type ManifestFile, type ModelStore} from './store';

/**
 * Says which bytes a store holds under an address: the same words for the same bytes. Nothing where the model is not there, or of a file
 * neither a hash nor a version is known.
 */
export async function storedIdentity(
  address: string,
  store: ModelStore,
  hub = HUGGING_FACE,
): Promise<string | undefined> {
  const known = await findStored(store, formatModelAddress(parseModelAddress(address, hub)));
  const manifest = known && (await store.use(known.id, (folder) => folder.readManifest()));
  if (manifest === undefined) return undefined;
  const files = manifest.files.map(identityOf);
  return files.includes(undefined) ? undefined : [manifest.name, ...files].join('; ');
}

function identityOf({name, size, sha256, version, listed, url}: ManifestFile): string | undefined {
  // A hub's URL has the commit in it.
  const content = sha256 ?? (listed ? url : version);
  return content === undefined ? undefined : `${name} ${size} ${content}`;
}
