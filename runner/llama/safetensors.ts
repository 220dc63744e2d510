import {float16Table} from '../float16';
import {cut, shown} from '../message_text';
import {parseStrictJsonObject, readBytes, type CheckpointFile} from './checkpoint_file';

/** Element types that are read; each becomes float32. */
const DTYPE_BYTES = {F32: 4, F16: 2, BF16: 2} as const;
type Dtype = keyof typeof DTYPE_BYTES;

/** A header larger than this is taken for a damaged file, as the reference implementation does. */
const MAX_HEADER_BYTES = 100_000_000;

/** Read and converted at once: an embedding of hundreds of megabytes would keep the page from answering meanwhile. */
const PIECE_BYTES = 2 ** 24;

interface Entry {
  dtype: Dtype;
  shape: number[];
  /** Byte range within the file. */
  start: number;
  end: number;
}

/**
 * A `.safetensors` file: an 8-byte little-endian header length, a JSON header that gives each tensor's type, shape and
 * byte range, then the bytes.
 *
 * The whole header is checked on opening, so that a damaged or truncated file is refused before anything is uploaded.
 * Values are read and converted one tensor at a time.
 */
export class Safetensors {
  private constructor(
    private readonly file: CheckpointFile,
    private readonly entries: ReadonlyMap<string, Entry>,
  ) {}

  static async open(file: CheckpointFile): Promise<Safetensors> {
    const {header, dataStart} = await readHeader(file);
    const entries = new Map<string, Entry>();
    for (const [name, value] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      entries.set(name, checkEntry(`${file.name}: tensor "${cut(name)}"`, value, dataStart, file.size));
    }
    checkPlaces(file, entries, dataStart);
    return new Safetensors(file, entries);
  }

  get fileName(): string {
    return this.file.name;
  }

  /** Names of the tensors, in the header's order. */
  names(): string[] {
    return [...this.entries.keys()];
  }

  has(name: string): boolean {
    return this.entries.has(name);
  }

  shape(name: string): readonly number[] {
    return this.entry(name).shape;
  }

  /** The values of one tensor, row-major, as float32. */
  async read(name: string): Promise<Float32Array> {
    const {start, end, dtype} = this.entry(name);
    const values = new Float32Array((end - start) / DTYPE_BYTES[dtype]);
    for (let at = start; at < end; at += PIECE_BYTES) {
      const piece = await readBytes(this.file, at, Math.min(at + PIECE_BYTES, end));
      decode(piece, dtype, values.subarray((at - start) / DTYPE_BYTES[dtype]));
    }
    return values;
  }

  /** The element type of a tensor. */
  dtype(name: string): Dtype {
    return this.entry(name).dtype;
  }

  /** The bytes of rows [first, end) of a matrix. */
  async readRows(name: string, first: number, end: number): Promise<Uint8Array> {
    const {start, end: last, shape} = this.entry(name);
    const rowBytes = (last - start) / shape[0];
    return new Uint8Array(await readBytes(this.file, start + first * rowBytes, start + end * rowBytes));
  }

  private entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (entry === undefined) {
      throw new Error(`${this.fileName}: tensor "${name}" is missing; the file has ${this.entries.size} others`);
    }
    return entry;
  }
}

async function readHeader(file: CheckpointFile): Promise<{header: Record<string, unknown>; dataStart: number}> {
  if (file.size < 8) {
    throw new Error(`${file.name}: the file has ${file.size} bytes; the header length alone takes 8`);
  }
  const length = new DataView(await readBytes(file, 0, 8)).getBigUint64(0, true);
  const room = Math.min(file.size - 8, MAX_HEADER_BYTES);
  if (length > BigInt(room)) {
    throw new Error(
      `${file.name}: the header claims ${length} bytes; there is room for ${room}: is it a safetensors file, whole?`,
    );
  }
  const dataStart = 8 + Number(length);
  const header = parseStrictJsonObject(await readBytes(file, 8, dataStart), `${file.name}: the header`);
  return {header, dataStart};
}

/**
 * Tensors lie side by side and fill the file, as the format says: bytes that two of them share, or that none has, are damage, or somebody's
 * second file.
 */
function checkPlaces(file: CheckpointFile, entries: ReadonlyMap<string, Entry>, dataStart: number): void {
  const byStart = [...entries].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let end = dataStart;
  let before = 'the header';
  for (const [name, entry] of byStart) {
    if (entry.start !== end) {
      throw new Error(
        `${file.name}: tensor "${cut(name)}" starts at byte ${entry.start}, ${before} ends at ${end}; ` +
          'accepted: tensors side by side',
      );
    }
    end = entry.end;
    before = `"${cut(name)}"`;
  }
  if (end !== file.size) {
    throw new Error(`${file.name}: ${file.size - end} bytes follow ${before}; accepted: none after the last tensor`);
  }
}

function checkEntry(what: string, value: unknown, dataStart: number, fileBytes: number): Entry {
  const {dtype, shape, data_offsets: offsets} = (value ?? {}) as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    const accepted = Object.keys(DTYPE_BYTES).join(', ');
    throw new Error(`${what} has dtype ${shown(dtype)}; accepted: ${accepted}`);
  }
  if (!isListOfCounts(shape)) {
    throw new Error(`${what} has shape ${shown(shape)}; accepted: a list of non-negative integers`);
  }
  if (!isListOfCounts(offsets) || offsets.length !== 2 || offsets[0] > offsets[1]) {
    throw new Error(`${what} has data_offsets ${shown(offsets)}; accepted: [start, end], start <= end`);
  }
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype as Dtype]);
  if (offsets[1] - offsets[0] !== bytes) {
    throw new Error(
      `${what} spans ${offsets[1] - offsets[0]} bytes; [${cut(shape.join())}] of ${dtype} takes ${bytes}`,
    );
  }
  const [start, end] = [dataStart + offsets[0], dataStart + offsets[1]];
  if (end > fileBytes) {
    throw new Error(`${what} ends at byte ${end}; the file has ${fileBytes}: is it truncated?`);
  }
  return {dtype: dtype as Dtype, shape, start, end};
}

function isListOfCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/** Writes the values to the beginning of `values`. */
function decode(bytes: ArrayBuffer, dtype: Dtype, values: Float32Array): void {
  if (dtype === 'F32') {
    values.set(new Float32Array(bytes));
    return;
  }
  const halves = new Uint16Array(bytes);
  if (dtype === 'BF16') {
    // bfloat16 is the upper half of a float32.
    const bits = new Uint32Array(values.buffer, values.byteOffset, halves.length);
    for (let i = 0; i < halves.length; ++i) bits[i] = halves[i] << 16;
  } else {
    const float16Values = float16Table();
    for (let i = 0; i < halves.length; ++i) values[i] = float16Values[halves[i]];
  }
}
