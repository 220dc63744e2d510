/** Element types that are read; each becomes float32. */
const DTYPE_BYTES = {F32: 4, F16: 2, BF16: 2} as const;
type Dtype = keyof typeof DTYPE_BYTES;

/** A header larger than this is taken for a damaged file, as the reference implementation does. */
const MAX_HEADER_BYTES = 100_000_000;

interface Entry {
  dtype: Dtype;
  shape: number[];
  /** Byte range within the file. */
  start: number;
  end: number;
}

/**
 * A `.safetensors` file held in memory: an 8-byte little-endian header length, a JSON header that gives each
 * tensor's type, shape and byte range, then the bytes.
 *
 * The whole header is checked on construction, so that a damaged or truncated file is refused before
 * anything is uploaded. Values are converted one tensor at a time, on `read`.
 */
export class Safetensors {
  private readonly entries = new Map<string, Entry>();

  constructor(private readonly file: ArrayBuffer) {
    const {header, dataStart} = readHeader(file);
    for (const [name, value] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      this.entries.set(name, checkEntry(name, value, dataStart, file.byteLength));
    }
  }

  /** Names of the tensors, in the header's order. */
  names(): string[] {
    return [...this.entries.keys()];
  }

  /**
   * The values of one tensor, row-major, as float32.
   *
   * @param name name in the header.
   * @param shape the shape that the caller expects; another one throws.
   */
  read(name: string, shape: readonly number[]): Float32Array {
    const entry = this.entries.get(name);
    if (entry === undefined) {
      throw new Error(`safetensors: tensor "${name}" is missing; the file has ${this.entries.size} others`);
    }
    if (entry.shape.join() !== shape.join()) {
      throw new Error(`safetensors: tensor "${name}" has shape [${entry.shape}]; config.json asks for [${shape}]`);
    }
    // A copy, because typed arrays need an aligned start and the format promises none.
    return toFloat32(this.file.slice(entry.start, entry.end), entry.dtype);
  }
}

function readHeader(file: ArrayBuffer): {header: Record<string, unknown>; dataStart: number} {
  if (file.byteLength < 8) {
    throw new Error(`safetensors: the file has ${file.byteLength} bytes; the header length alone takes 8`);
  }
  const length = new DataView(file).getBigUint64(0, true);
  const room = Math.min(file.byteLength - 8, MAX_HEADER_BYTES);
  if (length > BigInt(room)) {
    throw new Error(`safetensors: the header claims ${length} bytes; there is room for ${room}`);
  }
  const dataStart = 8 + Number(length);
  const text = new TextDecoder().decode(new Uint8Array(file, 8, Number(length)));
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw new Error(`safetensors: the header is not JSON: ${(error as Error).message}`, {cause: error});
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw new Error('safetensors: the header is not a JSON object');
  }
  return {header: header as Record<string, unknown>, dataStart};
}

function checkEntry(name: string, value: unknown, dataStart: number, fileBytes: number): Entry {
  const {dtype, shape, data_offsets: offsets} = (value ?? {}) as Record<string, unknown>;
  const what = `safetensors: tensor "${name}"`;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    const accepted = Object.keys(DTYPE_BYTES).join(', ');
    throw new Error(`${what} has dtype ${JSON.stringify(dtype)}; accepted: ${accepted}`);
  }
  if (!isListOfCounts(shape)) {
    throw new Error(`${what} has shape ${JSON.stringify(shape)}; accepted: a list of non-negative integers`);
  }
  if (!isListOfCounts(offsets) || offsets.length !== 2 || offsets[0] > offsets[1]) {
    throw new Error(`${what} has data_offsets ${JSON.stringify(offsets)}; accepted: [start, end], start <= end`);
  }
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype as Dtype]);
  if (offsets[1] - offsets[0] !== bytes) {
    throw new Error(`${what} spans ${offsets[1] - offsets[0]} bytes; [${shape}] of ${dtype} takes ${bytes}`);
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

function toFloat32(bytes: ArrayBuffer, dtype: Dtype): Float32Array {
  if (dtype === 'F32') return new Float32Array(bytes);
  const halves = new Uint16Array(bytes);
  const values = new Float32Array(halves.length);
  if (dtype === 'BF16') {
    // bfloat16 is the upper half of a float32.
    const bits = new Uint32Array(values.buffer);
    for (let i = 0; i < halves.length; ++i) bits[i] = halves[i] << 16;
  } else {
    for (let i = 0; i < halves.length; ++i) values[i] = float16Value(halves[i]);
  }
  return values;
}

/** IEEE 754 binary16: 1 sign bit, 5 exponent bits (bias 15), 10 fraction bits. */
function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
