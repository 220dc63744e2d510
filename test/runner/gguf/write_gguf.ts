/** A value as the references' JSON has it: an array with the type of its elements, 64-bit integers as strings. */
export type Written = number | string | boolean | {of: number; values: Written[]};

/** `type` is the number of the format. */
export interface WrittenEntry {
  type: number;
  value: Written;
}

export interface WrittenTensor {
  name: string;
  /** The first is contiguous. */
  dims: number[];
  type: number;
  bytes: Uint8Array;
}

/** Numbers of the format's value types. */
export const VALUE_TYPE = {
  uint8: 0,
  uint32: 4,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
} as const;

/** A little-endian GGUF file, whose tensors lie in the order given. */
export function writeGGUF(
  metadata: Record<string, WrittenEntry>,
  tensors: readonly WrittenTensor[] = [],
  {version = 3, alignment = 32}: {version?: number; alignment?: number} = {},
): Uint8Array<ArrayBuffer> {
  const entries = Object.entries(metadata);
  const header = [ascii('GGUF'), uint32(version), uint64(tensors.length), uint64(entries.length)];
  for (const [key, {type, value}] of entries) header.push(string(key), uint32(type), writeValue(type, value));
  const data: Uint8Array[] = [];
  for (const {name, dims, type, bytes} of tensors) {
    header.push(string(name), uint32(dims.length), ...dims.map(uint64), uint32(type), uint64(byteLength(data)));
    data.push(bytes, padding(bytes.length, alignment));
  }
  if (tensors.length > 0) header.push(padding(byteLength(header), alignment));
  return concatenate([...header, ...data]);
}

function writeValue(type: number, value: Written): Uint8Array {
  if (typeof value === 'object') {
    const {of, values} = value;
    return concatenate([uint32(of), uint64(values.length)].concat(values.map((item) => writeValue(of, item))));
  }
  return type === VALUE_TYPE.string ? string(String(value)) : scalar(type, value);
}

function scalar(type: number, value: number | string | boolean): Uint8Array {
  switch (type) {
    case VALUE_TYPE.uint8:
    case VALUE_TYPE.bool:
      return Uint8Array.of(Number(value));
    case VALUE_TYPE.uint32:
      return uint32(Number(value));
    case VALUE_TYPE.float32:
      return new Uint8Array(Float32Array.of(Number(value)).buffer);
    case VALUE_TYPE.uint64:
    case VALUE_TYPE.int64:
      return new Uint8Array(BigInt64Array.of(BigInt.asIntN(64, BigInt(value))).buffer);
    default:
      throw new Error(`value type ${type} is not written`);
  }
}

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const uint32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);
const uint64 = (value: number): Uint8Array => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);

function string(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  return concatenate([uint64(bytes.length), bytes]);
}

const padding = (length: number, alignment: number): Uint8Array => new Uint8Array(-length & (alignment - 1));

function byteLength(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, {length}) => sum + length, 0);
}

function concatenate(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(byteLength(pieces));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
