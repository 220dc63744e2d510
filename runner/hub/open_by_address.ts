import {failAs} from '../failure';
import {readJsonObject, type CheckpointFile} from '../llama/checkpoint_file';
import {parseConfig} from '../llama/config';
import {chooseFiles} from './choose_files';
import {downloadFile, type DownloadOptions} from './download';
import {formatModelAddress, HUGGING_FACE, parseModelAddress, type ModelAddress} from './model_address';
import {listRepo} from './repo_listing';
import {checkRoom} from './room';
import {
  findStored,
  modelId,
  storedName,
  type Manifest,
  type ManifestFile,
  type ModelFolder,
  type ModelStore,
} from './store';
import {TransferRate} from './transfer_rate';

export interface DownloadProgress {
  /** Bytes of the model that are stored, those from before included. */
  done: number;
  /** Bytes of the model; as many as `done` where the host does not say it. */
  total: number;
  /** Over the last seconds; absent while there is nothing to go by. */
  bytesPerSecond?: number;
}

export interface OpenOptions extends Pick<DownloadOptions, 'signal' | 'backOffMs' | 'silenceMs'> {
  /** Base of the hub that `owner/name` means. Default: https://huggingface.co. */
  hub?: string;
  /** Told at most ten times a second, and at the end. */
  onProgress?: (progress: DownloadProgress) => void;
}

const CONFIG = 'config.json';

const PROGRESS_MS = 100;

/**
 * The files of a model, for `openCheckpoint`: from the store where all of them are there, without asking the network; else
 * downloaded into it, from where that stopped before.
 *
 * @param address as a person types it: see `parseModelAddress`.
 * @throws Error that names what came and what is accepted; the signal's reason where that ended it.
 */
export async function openByAddress<F extends CheckpointFile>(
  address: string,
  store: ModelStore<F>,
  options: OpenOptions = {},
): Promise<F[]> {
  const {hub = HUGGING_FACE, signal} = options;
  const parsed = parseModelAddress(address, hub);
  const typed = formatModelAddress(parsed);
  const known = await findStored(store, typed);
  const wanted = known ? undefined : await findModel(parsed, signal);
  const id = known?.id ?? modelId(wanted!.name);
  try {
    return await store.use(id, (folder) => fill(folder, store, wanted, options), signal);
  } catch (error) {
    await forgetEmpty(store, id);
    throw error;
  }
}

/**
 * Downloads what is missing, and opens all.
 *
 * @param wanted what the folder is to hold. Default: what its manifest says.
 */
async function fill<F extends CheckpointFile>(
  folder: ModelFolder<F>,
  store: ModelStore<F>,
  wanted: Manifest | undefined,
  options: OpenOptions,
): Promise<F[]> {
  const stored = await folder.readManifest();
  const manifest = wanted ? await reconcile(wanted, stored, folder) : stored;
  if (manifest === undefined) throw new Error('the model was deleted meanwhile; try again');
  if (manifest.files.some(({complete}) => !complete)) await downloadAll(manifest, folder, store, options);
  return Promise.all(manifest.files.map(({name}) => folder.open(name)));
}

/** A model of which nothing came is not listed. One that another tab has begun meanwhile stays. */
async function forgetEmpty(store: ModelStore, id: string): Promise<void> {
  const isEmpty = (await store.list()).some((model) => model.id === id && model.bytes === 0);
  if (isEmpty) await store.delete(id).catch(() => {});
}

/** What the model's folder is to hold. */
async function findModel(address: ModelAddress, signal?: AbortSignal): Promise<Manifest> {
  const typed = formatModelAddress(address);
  if (address.kind === 'file') {
    const {pathname} = new URL(address.url);
    const file = {name: storedName(pathname), url: address.url, listed: false, complete: false};
    return {name: address.url, addresses: [typed], files: [file]};
  }
  const {commit, files} = await listRepo(address, signal);
  const chosen = chooseFiles(address, files);
  const [first] = chosen;
  const own = formatModelAddress({...address, file: first.path.endsWith('.gguf') ? first.path : undefined});
  const {hub, owner, name} = address;
  return {
    name: own,
    addresses: [...new Set([own, typed])],
    files: chosen.map(({path, size, sha256}) => ({
      name: storedName(path),
      url: `${hub}/${owner}/${name}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`,
      size,
      sha256,
      listed: true,
      complete: false,
    })),
  };
}

/** What is stored of the same files counts; a file of another length or hash goes. */
async function reconcile(wanted: Manifest, stored: Manifest | undefined, folder: ModelFolder): Promise<Manifest> {
  const files: ManifestFile[] = [];
  for (const file of wanted.files) {
    const before = stored?.files.find(({name}) => name === file.name);
    if (before !== undefined && isSame(before, file)) {
      const complete = before.complete && before.size === (await folder.size(file.name));
      files.push({...before, url: file.url, complete});
    } else {
      await folder.remove(file.name);
      files.push(file);
    }
  }
  const manifest = {...wanted, files, addresses: [...new Set([...wanted.addresses, ...(stored?.addresses ?? [])])]};
  await folder.writeManifest(manifest);
  return manifest;
}

/** Without a hash, a file of another commit may differ at the same length. */
function isSame(before: ManifestFile, now: ManifestFile): boolean {
  if (!now.listed) return before.url === now.url;
  return before.size === now.size && (now.sha256 === undefined ? before.url === now.url : before.sha256 === now.sha256);
}

/** @throws Failure, before the weights are downloaded, if the model cannot be computed. */
async function checkConfig(file: CheckpointFile): Promise<void> {
  await failAs('CheckpointError', async () => parseConfig(await readJsonObject(file)));
}

async function downloadAll(
  manifest: Manifest,
  folder: ModelFolder,
  store: ModelStore,
  {onProgress = () => {}, signal, backOffMs, silenceMs}: OpenOptions,
): Promise<void> {
  const {files} = manifest;
  const stored = new Map<ManifestFile, number>();
  for (const file of files) stored.set(file, await folder.size(file.name));
  const sum = (of: (file: ManifestFile) => number) => files.reduce((total, file) => total + of(file), 0);
  const left = sum((file) => Math.max(0, (file.size ?? 0) - stored.get(file)!));
  await checkRoom(store, left, manifest.name);

  const rate = new TransferRate();
  let told = -Infinity;
  const tell = () => {
    told = performance.now();
    const done = sum((file) => stored.get(file)!);
    onProgress({done, total: sum((file) => file.size ?? stored.get(file)!), bytesPerSecond: rate.bytesPerSecond});
  };
  tell();
  for (const file of files.filter(({complete}) => !complete)) {
    const onBytes = (bytes: number) => {
      rate.add(Math.max(0, bytes - stored.get(file)!));
      stored.set(file, bytes);
      if (performance.now() >= told + PROGRESS_MS) tell();
    };
    const save = () => folder.writeManifest(manifest);
    await downloadFile(file, {folder, store, save}, {onBytes, signal, backOffMs, silenceMs});
    if (file.name === CONFIG) await checkConfig(await folder.open(CONFIG));
  }
  tell();
}
