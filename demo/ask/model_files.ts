import {existsSync, readdirSync, statSync} from 'node:fs';
import {join} from 'node:path';
import {FolderStore} from '../../runner/hub/folder_store';
import {parseModelAddress} from '../../runner/hub/model_address';
import {openByAddress, type DownloadProgress} from '../../runner/hub/open_by_address';

/** Between two lines of progress, in milliseconds. */
const LINE_MS = 2000;

/** Where a model comes from: what is on this disk goes before what a hub may have under the same name. */
export type ModelPlace = {paths: string[]} | {address: string; hub?: string};

/** @throws Error if it is neither a file, nor a folder, nor an address. */
export function placeOfModel(text: string, hub?: string): ModelPlace {
  if (existsSync(text)) {
    if (!statSync(text).isDirectory()) return {paths: [text]};
    const paths = readdirSync(text).map((name) => join(text, name));
    return {paths: paths.filter((path) => statSync(path).isFile())};
  }
  if (hub !== undefined && !URL.canParse(hub)) {
    throw new Error(`--hub is "${hub}"; accepted: the address of a hub, as https://huggingface.co`);
  }
  try {
    parseModelAddress(text, hub);
  } catch (error) {
    throw new Error(`--model: no file or folder of this name, and ${(error as Error).message}`, {cause: error});
  }
  return {address: text, hub};
}

/**
 * Paths of the model's files; of an address after they were downloaded. How that goes is told on stderr.
 *
 * @param cache folder of what was downloaded. Default: `defaultCacheFolder`.
 */
export async function filesOfModel(place: ModelPlace, cache?: string): Promise<string[]> {
  if ('paths' in place) return place.paths;
  let told = performance.now();
  const onProgress = (progress: DownloadProgress) => {
    if (performance.now() < told + LINE_MS) return;
    told = performance.now();
    console.error(describe(progress));
  };
  const files = await openByAddress(place.address, new FolderStore(cache), {hub: place.hub, onProgress});
  return files.map(({path}) => path);
}

function describe({done, total, bytesPerSecond}: DownloadProgress): string {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0);
  const left = bytesPerSecond ? `, ${Math.ceil((total - done) / bytesPerSecond)} s left` : '';
  return `download: ${megabytes(done)} of ${megabytes(total)} MB${left}`;
}
