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

/** TypeScript declares it for workers alone, and this project for pages. */
interface WorkersFileHandle extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<{
    getSize(): number;
    write(bytes: Uint8Array<ArrayBuffer>, options: {at: number}): number;
    close(): void;
  }>;
}

/** Far more than another tab's writes come between: then the file cannot be read. */
const READ_ATTEMPTS = 50;

/**
 * Models, or what else has a folder each, in the browser's file system for this page's origin (OPFS), in a worker: only there can a file be written in place,
 * so that what came before a crash stays.
 */
export class OPFSStore implements ModelStore<File> {
  /** @param folder the store's own in the origin's file system. */
  constructor(private readonly folder = 'models') {}

  /** Whether this browser keeps files for this page: for one of `file:` and in some private windows it does not. */
  async isAvailable(): Promise<boolean> {
    try {
      await openFolder(this.folder);
    } catch {
      return false;
    }
    return 'locks' in navigator && 'createSyncAccessHandle' in FileSystemFileHandle.prototype;
  }

  async list(): Promise<StoredModel[]> {
    const root = await openFolder(this.folder);
    const models: StoredModel[] = [];
    for await (const handle of root.values()) {
      if (handle.kind === 'directory') models.push(await describeModel(handle.name, new OPFSFolder(handle)));
    }
    return models.sort((a, b) => a.name.localeCompare(b.name));
  }

  async delete(id: string): Promise<void> {
    checkId(id);
    const root = await openFolder(this.folder);
    await navigator.locks.request(this.lockOf(id), {ifAvailable: true}, async (lock) => {
      if (lock === null) throw new Error(`${id}: is in use, here or in another tab; wait for that, or cancel it first`);
      await unlessMissing(root.removeEntry(id, {recursive: true}));
    });
  }

  async room(): Promise<number | undefined> {
    const {quota, usage} = await navigator.storage.estimate();
    return quota === undefined || usage === undefined ? undefined : Math.max(0, quota - usage);
  }

  async use<T>(id: string, run: (folder: ModelFolder<File>) => Promise<T>, signal?: AbortSignal): Promise<T> {
    checkId(id);
    const root = await openFolder(this.folder);
    return navigator.locks.request(this.lockOf(id), {signal}, async () => {
      return run(new OPFSFolder(await root.getDirectoryHandle(id, {create: true})));
    }) as Promise<T>;
  }

  private lockOf(id: string): string {
    return `${this.folder}/${id}`;
  }
}

class OPFSFolder implements ModelFolder<File> {
  constructor(private readonly folder: FileSystemDirectoryHandle) {}

  async readManifest(): Promise<Manifest | undefined> {
    for (let attempt = 0; attempt < READ_ATTEMPTS; ++attempt) {
      const file = await this.find(MANIFEST);
      if (file === undefined) return undefined;
      // Another tab that writes it puts a new file in its place: the one that was got is then gone before it is read.
      const text = await file.text().catch(() => undefined);
      if (text !== undefined) return parseManifest(text);
    }
    return undefined;
  }

  async writeManifest(manifest: Manifest): Promise<void> {
    const handle = await this.folder.getFileHandle(MANIFEST, {create: true});
    // What is written becomes the file on closing, all at once.
    const stream = await handle.createWritable();
    await stream.write(JSON.stringify(manifest));
    await stream.close();
  }

  async size(name: string): Promise<number> {
    return (await this.find(name))?.size ?? 0;
  }

  async append(name: string): Promise<Appender> {
    const handle = (await this.folder.getFileHandle(name, {create: true})) as WorkersFileHandle;
    const access = await handle.createSyncAccessHandle();
    let at = access.getSize();
    return {
      async write(bytes) {
        for (let done = 0; done < bytes.length;) {
          const written = access.write(bytes.subarray(done), {at});
          // Without room Chromium throws, but in private windows returns an error code as an unsigned number.
          if (written === 0 || written > bytes.length - done) throw new Error('no space available');
          done += written;
          at += written;
        }
      },
      async close() {
        access.close();
      },
    };
  }

  async open(name: string): Promise<File> {
    return (await this.folder.getFileHandle(name)).getFile();
  }

  async remove(name: string): Promise<void> {
    await unlessMissing(this.folder.removeEntry(name));
  }

  private async find(name: string): Promise<File | undefined> {
    return unlessMissing(this.open(name));
  }
}

async function openFolder(name: string): Promise<FileSystemDirectoryHandle> {
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(name, {create: true});
  } catch (error) {
    throw new Error(
      `this browser keeps no files for this page (${(error as Error).message}): is the window private? Open the model from a file`,
      {cause: error},
    );
  }
}

async function unlessMissing<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (error) {
    if ((error as DOMException).name === 'NotFoundError') return undefined;
    throw error;
  }
}
