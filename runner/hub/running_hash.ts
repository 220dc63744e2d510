import {sha256} from '@noble/hashes/sha2.js';
import {bytesToHex} from '@noble/hashes/utils.js';
import {readBytes} from '../llama/checkpoint_file';
import type {ModelFolder} from './store';

/** Read at once. */
const PIECE = 2 ** 22;

/** The sha256 of a file that grows, so that nothing is left to compute when the last byte has come. */
export class RunningHash {
  private hash = sha256.create();
  private bytes = 0;

  /** @param at where the bytes stand in the file; those before are hashed already. */
  add(bytes: Uint8Array, at: number): void {
    if (at === 0) this.restart();
    if (at !== this.bytes) throw new Error(`bytes at ${at} are hashed; accepted: at ${this.bytes}`);
    this.hash.update(bytes);
    this.bytes += bytes.length;
  }

  /** Reads what is stored and not hashed yet: from a download before this one. */
  async catchUp(folder: ModelFolder, name: string, signal?: AbortSignal): Promise<void> {
    const size = await folder.size(name);
    if (size < this.bytes) this.restart();
    if (size === this.bytes) return;
    const file = await folder.open(name);
    while (this.bytes < size) {
      signal?.throwIfAborted();
      this.add(new Uint8Array(await readBytes(file, this.bytes, Math.min(this.bytes + PIECE, size))), this.bytes);
    }
  }

  /** In hexadecimal digits; to be asked once. */
  digest(): string {
    return bytesToHex(this.hash.digest());
  }

  private restart(): void {
    this.hash = sha256.create();
    this.bytes = 0;
  }
}
