import {existsSync} from 'node:fs';
import {mkdir, open, readdir, readFile, rename, rm, stat, statfs, writeFile} from 'node:fs/promises';
import {homedir} from 'node:os';
import {join} from 'node:path';
import type {CheckpointFile} from '../llama/checkpoint_file';
import {
  checkId,
  describeModel,
  MANIFEST,
  parseManifest,
  type Appender,
  type Manifest,
  type ModelFolder,
  type ModelStore,
  type StoredModel,
} from './store';

/** Who works on a model's folder: the id of a process. */
const LOCK = 'lock';

/** Follows the convention of Linux; the same place on other systems, where it is easily found. */
export function defaultCacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'tfjs-pbs-attention');
}

export interface FileOnDisk extends CheckpointFile {
  readonly path: string;
}

/** Models in a folder of this machine, in Node. */
export class FolderStore implements ModelStore<FileOnDisk> {
  constructor(readonly path = defaultCacheFolder()) {}

  async list(): Promise<StoredModel[]> {
    const entries = existsSync(this.path) ? await readdir(this.path, {withFileTypes: true}) : [];
    const folders = entries.filter((entry) => entry.isDirectory());
    const models = await Promise.all(folders.map(({name}) => describeModel(name, new FolderOnDisk(this.pathOf(name)))));
    return models.sort((a, b) => a.name.localeCompare(b.name));
  }

  async delete(id: string): Promise<void> {
    if (!existsSync(this.pathOf(id))) return;
    await this.use(id, () => rm(this.pathOf(id), {recursive: true}));
  }

  async room(): Promise<number> {
    await mkdir(this.path, {recursive: true});
    const {bavail, bsize} = await statfs(this.path);
    return bavail * bsize;
  }

  async use<T>(id: string, run: (folder: ModelFolder<FileOnDisk>) => Promise<T>): Promise<T> {
    const path = this.pathOf(id);
    await mkdir(path, {recursive: true});
    const lock = join(path, LOCK);
    await takeLock(lock);
    try {
      return await run(new FolderOnDisk(path));
    } finally {
      await rm(lock, {force: true});
    }
  }

  private pathOf(id: string): string {
    checkId(id);
    return join(this.path, id);
  }
}

class FolderOnDisk implements ModelFolder<FileOnDisk> {
  constructor(private readonly path: string) {}

  async readManifest(): Promise<Manifest | undefined> {
    const path = this.pathOf(MANIFEST);
    return existsSync(path) ? parseManifest(await readFile(path, 'utf8')) : undefined;
  }

  async writeManifest(manifest: Manifest): Promise<void> {
    const draft = this.pathOf(`${MANIFEST}.new`);
    await writeFile(draft, `${JSON.stringify(manifest, null, 2)}\n`);
    await rename(draft, this.pathOf(MANIFEST));
  }

  async size(name: string): Promise<number> {
    const path = this.pathOf(name);
    return existsSync(path) ? (await stat(path)).size : 0;
  }

  async append(name: string): Promise<Appender> {
    const file = await open(this.pathOf(name), 'a');
    return {write: (bytes) => file.writeFile(bytes), close: () => file.close()};
  }

  async open(name: string): Promise<FileOnDisk> {
    const path = this.pathOf(name);
    const {size} = await stat(path);
    return {
      name,
      path,
      size,
      slice: (start, end) => ({arrayBuffer: () => readSlice(path, start, Math.min(end, size))}),
    };
  }

  async remove(name: string): Promise<void> {
    await rm(this.pathOf(name), {force: true});
  }

  private pathOf(name: string): string {
    return join(this.path, name);
  }
}

async function readSlice(path: string, start: number, end: number): Promise<ArrayBuffer> {
  const bytes = new Uint8Array(end - start);
  const file = await open(path);
  try {
    for (let at = 0; at < bytes.length;) {
      const {bytesRead} = await file.read(bytes, at, bytes.length - at, start + at);
      if (bytesRead === 0) return bytes.buffer.slice(0, at);
      at += bytesRead;
    }
    return bytes.buffer;
  } finally {
    await file.close();
  }
}

/** @throws Error if a process that runs has it; one that ended without giving it back does not count. */
async function takeLock(path: string): Promise<void> {
  try {
    await writeFile(path, String(process.pid), {flag: 'wx'});
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    const owner = Number(await readFile(path, 'utf8').catch(() => ''));
    if (owner > 0 && isRunning(owner)) {
      throw new Error(
        `${path}: process ${owner} is at this model; wait for it, or delete this file if it is another program`,
        {cause: error},
      );
    }
    await writeFile(path, String(process.pid));
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // It runs, as somebody else's.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
