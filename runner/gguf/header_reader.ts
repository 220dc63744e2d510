import {readBytes, type CheckpointFile} from '../llama/checkpoint_file';
import {cut} from '../message_text';

/** Read at once; a header of a few MB takes a few reads, whatever the size of the file. */
const CHUNK_BYTES = 2 ** 20;

/** Longer strings are taken for damage: the longest in use, chat templates and licences, have some tens of kB. */
const MAX_STRING_BYTES = 2 ** 23;

/**
 * What the values of a header may take in memory, by the estimates given to `claim`. A vocabulary of 262,144 tokens with
 * scores, types and 514,906 merges (Gemma 3) is estimated at 60 MB.
 */
const MAX_MEMORY_BYTES = 80_000_000;

/**
 * Reads the fields of a header one after the other. No length and no count is believed: what it needs must be left in
 * the file, and in the memory that a header may take.
 *
 * Every error says `FILE: FIELD: what came; accepted: what is accepted`.
 */
export class HeaderReader {
  private window = new DataView(new ArrayBuffer(0));
  private windowStart = 0;
  private at = 0;
  private claimed = 0;
  // A token may be or begin with a byte order mark.
  private readonly decoder = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true});

  constructor(private readonly file: CheckpointFile) {}

  /** In bytes, from the start of the file. */
  get position(): number {
    return this.at;
  }

  get bytesLeft(): number {
    return this.file.size - this.at;
  }

  refusal(field: string, came: string, accepted: string): Error {
    return new Error(`${this.file.name}: ${cut(field)}: ${cut(came)}; accepted: ${accepted}`);
  }

  /** Counts what a value is going to take in memory, before it does. */
  claim(bytes: number, field: string): void {
    this.claimed += bytes;
    if (this.claimed > MAX_MEMORY_BYTES) {
      throw this.refusal(
        field,
        `with it the header takes ${this.claimed} bytes of memory`,
        `up to ${MAX_MEMORY_BYTES}, for metadata and names of tensors together`,
      );
    }
  }

  /** The next `length` bytes. */
  async bytes(length: number, field: string): Promise<DataView> {
    if (length > this.bytesLeft) {
      throw this.refusal(
        field,
        `${length} bytes at byte ${this.at}`,
        `the ${this.bytesLeft} that are left: is the file whole?`,
      );
    }
    if (this.at + length > this.windowStart + this.window.byteLength) {
      const end = Math.min(this.at + Math.max(length, CHUNK_BYTES), this.file.size);
      this.window = new DataView(await readBytes(this.file, this.at, end));
      this.windowStart = this.at;
    }
    const view = new DataView(this.window.buffer, this.at - this.windowStart, length);
    this.at += length;
    return view;
  }

  async uint32(field: string): Promise<number> {
    return (await this.bytes(4, field)).getUint32(0, true);
  }

  async uint64(field: string): Promise<bigint> {
    return (await this.bytes(8, field)).getBigUint64(0, true);
  }

  /** How many items follow, each of at least `itemBytes` bytes. */
  async count(field: string, itemBytes: number): Promise<number> {
    const count = await this.uint64(field);
    const room = Math.floor(this.bytesLeft / itemBytes);
    if (count > room) {
      throw this.refusal(field, `${count}`, `up to ${room}, for which the ${this.bytesLeft} bytes left have room`);
    }
    return Number(count);
  }

  /** @param lengths accepted, in bytes. */
  async string(field: string, lengths: {min: number; max: number} = ANY_LENGTH): Promise<string> {
    const length = await this.uint64(`${field}: length`);
    if (length < lengths.min || length > lengths.max) {
      throw this.refusal(`${field}: length`, `${length}`, `${lengths.min} to ${lengths.max} bytes`);
    }
    const bytes = await this.bytes(Number(length), field);
    // Two bytes a character at most, and no more characters than bytes; 40 for the object and its place in an array.
    this.claim(2 * bytes.byteLength + 40, field);
    try {
      return this.decoder.decode(bytes);
    } catch {
      throw this.refusal(field, `the bytes ${hexadecimal(bytes)}`, 'UTF-8');
    }
  }
}

const ANY_LENGTH = {min: 0, max: MAX_STRING_BYTES};

function hexadecimal(bytes: DataView): string {
  const first = new Uint8Array(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, 16));
  const digits = Array.from(first, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return bytes.byteLength > first.length ? `${digits} …` : digits;
}
