import {sha256} from '@noble/hashes/sha2.js';
import {bytesToHex, utf8ToBytes} from '@noble/hashes/utils.js';
import {checkRoom} from '../../runner/hub/room';
import type {ManifestFile, ModelFolder, ModelStore, StoredModel} from '../../runner/hub/store';
import type {Context} from '../../runner/llama/context';
import {ContextFile, ContextWriter, type ContextModel, type LayerHooks} from '../../runner/llama/context_file';

/** What was read, and how. */
export interface Reading {
  model: ContextModel;
  /** Of the model, and of all else that keys and values depend on. */
  identity: string;
  /** The beginning that all prompts about a document have. */
  tokens: readonly number[];
}

const FILE = 'context';

/** Contexts in a store: a folder for each, found by what was read and how. */
export class KeptContexts {
  constructor(private readonly store: ModelStore) {}

  list(): Promise<StoredModel[]> {
    return this.store.list();
  }

  delete(id: string): Promise<void> {
    return this.store.delete(id);
  }

  /** Whether it is there, whole. */
  async has(reading: Reading): Promise<boolean> {
    const id = idOf(reading);
    return (await this.store.list()).some((kept) => kept.id === id && kept.complete);
  }

  /**
   * Puts what is kept into the place of what a context holds; false where nothing is kept.
   *
   * @throws the signal's reason; else why the file cannot be read, which is then deleted.
   */
  async restore(reading: Reading, context: Context, hooks: LayerHooks): Promise<boolean> {
    if (!(await this.has(reading))) return false;
    const id = idOf(reading);
    const {model, identity} = reading;
    try {
      await this.store.use(
        id,
        async (folder) => {
          const file = await ContextFile.open(await folder.open(FILE), model, identity);
          await file.readInto(context, hooks);
        },
        hooks.signal,
      );
      return true;
    } catch (error) {
      hooks.signal?.throwIfAborted();
      await this.store.delete(id).catch(() => {});
      throw error;
    }
  }

  /**
   * Writes what a context holds of it, where that is not there yet.
   *
   * @param name as a person reads it.
   * @returns the bytes that were written; nothing where it was there.
   * @throws Error if there is no room, or the signal's reason; nothing of it stays.
   */
  async keep(reading: Reading, context: Context, name: string, hooks: LayerHooks): Promise<number | undefined> {
    if (await this.has(reading)) return undefined;
    const {model, identity, tokens} = reading;
    const id = idOf(reading);
    const writer = new ContextWriter(context, model, identity, tokens.length);
    const write = async (folder: ModelFolder) => {
      // Another tab was at it.
      if ((await folder.readManifest())?.files.every(({complete}) => complete)) return undefined;
      const file: ManifestFile = {name: FILE, url: '', listed: false, complete: false};
      const manifest = {name, addresses: [], files: [file]};
      // What a tab that was closed meanwhile has left.
      await folder.remove(FILE);
      await checkRoom(this.store, writer.bytes, name);
      await folder.writeManifest(manifest);
      const appender = await folder.append(FILE);
      try {
        await writer.write((bytes) => appender.write(bytes), hooks);
      } finally {
        await appender.close();
      }
      Object.assign(file, {size: writer.bytes, complete: true});
      await folder.writeManifest(manifest);
      return writer.bytes;
    };
    try {
      return await this.store.use(id, write, hooks.signal);
    } catch (error) {
      await this.store.delete(id).catch(() => {});
      throw error;
    }
  }
}

/** Keys and values in another element type are others. */
function idOf({model, identity, tokens}: Reading): string {
  return bytesToHex(sha256(utf8ToBytes(JSON.stringify([identity, model.newCache().elementType, tokens]))));
}
