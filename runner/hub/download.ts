import {Interruption, pause, reasonOf, Silence, Unreachable, WrongFile} from './interruptions';
import {openPart, type Part} from './range_request';
import {checkRoom} from './room';
import {RunningHash} from './running_hash';
import type {ManifestFile, ModelFolder, ModelStore} from './store';

export interface DownloadTarget {
  folder: ModelFolder;
  store: Pick<ModelStore, 'room'>;
  /** Called when the file's entry has changed. */
  save(): Promise<void>;
}

export interface DownloadOptions {
  /** Told of the bytes of this file that are stored, those from before included. */
  onBytes?: (stored: number) => void;
  /** Ends it with the signal's reason; what is stored stays. */
  signal?: AbortSignal;
  /** Pauses before each new attempt after one that brought nothing new; there are as many attempts. Default: 1 to 16 s, five. */
  backOffMs?: readonly number[];
  /** A connection that is silent for this long counts as cut. Default: 30 s. */
  silenceMs?: number;
}

const BACK_OFF_MS = [1000, 2000, 4000, 8000, 16_000];
const SILENCE_MS = 30_000;

/** Attempts to reach a host that has never answered. */
const FIRST_ATTEMPTS = 2;

/**
 * Downloads a file into its folder, in the order of its bytes, from where it stopped before. A cut connection is taken up
 * again; a host without ranges, and a file that has changed on the host, start over.
 *
 * @param file what is known of it; filled in, so that a later download can tell whether it goes on with the same file.
 * @throws Error that names the URL, what came and what is accepted. A part of the wrong length or hash is deleted first.
 */
export async function downloadFile(
  file: ManifestFile,
  target: DownloadTarget,
  options: DownloadOptions = {},
): Promise<void> {
  try {
    await new Download(file, target, options).run();
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof WrongFile)) throw error;
    await target.folder.remove(file.name);
    throw new Error(`${file.url}: ${error.message}. What was stored of it is deleted`, {cause: error});
  }
  file.complete = true;
  await target.save();
}

class Download {
  private readonly hash?: RunningHash;
  private answered = false;

  constructor(
    private readonly file: ManifestFile,
    private readonly target: DownloadTarget,
    private readonly options: DownloadOptions,
  ) {
    if (file.sha256 !== undefined) this.hash = new RunningHash();
  }

  async run(): Promise<void> {
    const {file, hash, options} = this;
    const {backOffMs = BACK_OFF_MS, signal} = options;
    let [most, failures] = [await this.stored(), 0];
    while (file.size === undefined || (await this.stored()) !== file.size) {
      try {
        await this.connect();
        break;
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof Interruption)) throw error;
        if (!(error instanceof Unreachable)) this.answered = true;
        const stored = await this.stored();
        // A host without ranges starts over each time: only bytes that were not there before count as getting on.
        failures = stored > most ? 0 : failures + 1;
        most = Math.max(most, stored);
        if (failures > backOffMs.length || (failures >= FIRST_ATTEMPTS && !this.answered)) {
          throw new Error(`${file.url}: ${error.message}. ${stored} bytes are stored; try again to go on`, {
            cause: error,
          });
        }
        if (failures > 0) await pause(backOffMs[failures - 1], signal);
      }
    }
    if (hash === undefined) return;
    await hash.catchUp(this.target.folder, file.name, signal);
    const got = hash.digest();
    if (got !== file.sha256) throw new WrongFile(`its sha256 is ${got}; accepted: ${file.sha256}`);
  }

  private stored(): Promise<number> {
    return this.target.folder.size(this.file.name);
  }

  /** One connection, from where the last one ended. */
  private async connect(): Promise<void> {
    const {file, target, options} = this;
    const {signal, silenceMs = SILENCE_MS} = options;
    const before = await this.stored();
    await this.hash?.catchUp(target.folder, file.name, signal);
    const silence = new Silence(silenceMs, signal);
    let part: Part | undefined;
    try {
      part = await openPart(file, before, silence.signal);
      if (part.start !== before) await target.folder.remove(file.name);
      file.version = part.version;
      if (!file.listed) file.size = part.total;
      await target.save();
      if (file.size !== undefined) await checkRoom(target.store, file.size - part.start, file.url);
      const stored = await this.store(part, silence);
      // Where neither hub nor host has said how long it is, a connection that ended in order has brought all.
      file.size ??= stored;
      if (stored < file.size) throw new Interruption(`the connection ended; accepted: ${file.size} bytes`);
    } catch (error) {
      signal?.throwIfAborted();
      if (silence.isOver) {
        const Kind = part === undefined ? Unreachable : Interruption;
        throw new Kind(`nothing came for ${silenceMs / 1000} s`, {cause: error});
      }
      throw error;
    } finally {
      silence.end();
      // Where it was not read to its end, the connection is of no more use; where it was cut, this fails too.
      await part?.body.cancel().catch(() => {});
    }
  }

  /** Writes what comes; bytes that are stored then. */
  private async store({body, start}: Part, silence: Silence): Promise<number> {
    const {file, target, options, hash} = this;
    let stored = start;
    options.onBytes?.(stored);
    const appender = await target.folder.append(file.name);
    const reader = body.getReader();
    try {
      for (;;) {
        const {done, value} = await reader.read().catch((error: unknown) => {
          throw new Interruption(`the connection was cut: ${reasonOf(error)}`, {cause: error});
        });
        if (done) return stored;
        silence.hear();
        if (file.size !== undefined && stored + value.length > file.size) {
          throw new WrongFile(`the server sends more than ${file.size} bytes; accepted: as many`);
        }
        await appender.write(value).catch((error: Error) => {
          throw new Error(`${file.url}: could not be stored: ${error.message}; delete stored models or free space`, {
            cause: error,
          });
        });
        hash?.add(value, stored);
        stored += value.length;
        options.onBytes?.(stored);
      }
    } finally {
      reader.releaseLock();
      await appender.close();
    }
  }
}
