import type {HeaderReader} from './header_reader';

/**
 * A value of the metadata. 64-bit integers are numbers where that is exact, else bigints; all other numbers, those of
 * float32 too, are numbers.
 */
export type MetadataValue = number | bigint | string | boolean | MetadataValue[];

/** The format's longest key, in bytes. */
const MAX_KEY_BYTES = 2 ** 16 - 1;

/** No model is known that nests arrays at all; llama.cpp refuses them. */
const MAX_NESTING = 4;

/** Elements of an array that are read at once. */
const ELEMENTS_AT_ONCE = 2 ** 16;

/** In memory: V8 makes room for 17 elements with the first. */
const EMPTY_ARRAY_BYTES = 200;

interface ScalarType {
  readonly bytes: number;
  get(view: DataView, at: number): number | bigint;
}

const STRING = 8;
const ARRAY = 9;
const BOOL = 7;

/** `enum gguf_type` of gguf.h: what has a size of its own. */
const SCALAR_TYPES: ReadonlyMap<number, ScalarType> = new Map<number, ScalarType>([
  [0, {bytes: 1, get: (view, at) => view.getUint8(at)}],
  [1, {bytes: 1, get: (view, at) => view.getInt8(at)}],
  [2, {bytes: 2, get: (view, at) => view.getUint16(at, true)}],
  [3, {bytes: 2, get: (view, at) => view.getInt16(at, true)}],
  [4, {bytes: 4, get: (view, at) => view.getUint32(at, true)}],
  [5, {bytes: 4, get: (view, at) => view.getInt32(at, true)}],
  [6, {bytes: 4, get: (view, at) => view.getFloat32(at, true)}],
  [BOOL, {bytes: 1, get: (view, at) => view.getUint8(at)}],
  [10, {bytes: 8, get: (view, at) => exactNumber(view.getBigUint64(at, true))}],
  [11, {bytes: 8, get: (view, at) => exactNumber(view.getBigInt64(at, true))}],
  [12, {bytes: 8, get: (view, at) => view.getFloat64(at, true)}],
]);

/** The least that a key and its value take: a length, one byte of key, a type, one byte of value. */
export const LEAST_ENTRY_BYTES = 8 + 1 + 4 + 1;

/** Reads `count` keys with their values. Throws on a key that stands twice and on whatever is not well formed. */
export async function readMetadata(reader: HeaderReader, count: number): Promise<Map<string, MetadataValue>> {
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < count; ++i) {
    const key = await reader.string(`metadata key ${i + 1} of ${count}`, {min: 1, max: MAX_KEY_BYTES});
    const field = `metadata ${JSON.stringify(key)}`;
    if (metadata.has(key)) throw reader.refusal(field, 'stands twice', 'each key once');
    reader.claim(100, field);
    const type = await readType(reader, `${field}: type`);
    metadata.set(key, await readValue(reader, type, field, 0));
  }
  return metadata;
}

async function readType(reader: HeaderReader, field: string): Promise<number> {
  const type = await reader.uint32(field);
  if (type !== STRING && type !== ARRAY && !SCALAR_TYPES.has(type)) {
    throw reader.refusal(field, `${type}`, '0 to 12, the types of the format');
  }
  return type;
}

async function readValue(reader: HeaderReader, type: number, field: string, nesting: number): Promise<MetadataValue> {
  if (type === STRING) return reader.string(field);
  if (type === ARRAY) return readArray(reader, field, nesting + 1);
  return (await readScalars(reader, type, 1, field))[0];
}

/** @param nesting 1 for an array that is in no other. */
async function readArray(reader: HeaderReader, field: string, nesting: number): Promise<MetadataValue[]> {
  if (nesting > MAX_NESTING) {
    throw reader.refusal(field, 'an array in an array, and so on', `up to ${MAX_NESTING} within each other`);
  }
  const type = await readType(reader, `${field}: type of the elements`);
  const scalar = SCALAR_TYPES.get(type);
  // A string takes its length, an array its type and its length.
  const leastBytes = scalar?.bytes ?? (type === STRING ? 8 : 12);
  const count = await reader.count(`${field}: number of elements`, leastBytes);
  if (scalar !== undefined) return readScalars(reader, type, count, field);
  const values: MetadataValue[] = [];
  for (let i = 0; i < count; ++i) {
    if (type === ARRAY) reader.claim(EMPTY_ARRAY_BYTES, field);
    values.push(await readValue(reader, type, field, nesting));
  }
  return values;
}

async function readScalars(
  reader: HeaderReader,
  type: number,
  count: number,
  field: string,
): Promise<(number | bigint | boolean)[]> {
  const {bytes, get} = SCALAR_TYPES.get(type)!;
  // 8 or 16 in an array, which is half as long again while it grows; a bigint is an object besides.
  reader.claim((bytes === 8 ? 56 : 24) * count, field);
  const values: (number | bigint | boolean)[] = [];
  while (values.length < count) {
    const view = await reader.bytes(bytes * Math.min(count - values.length, ELEMENTS_AT_ONCE), field);
    for (let at = 0; at < view.byteLength; at += bytes) {
      const value = get(view, at);
      values.push(type === BOOL ? asBoolean(reader, value, field) : value);
    }
  }
  return values;
}

function asBoolean(reader: HeaderReader, value: number | bigint, field: string): boolean {
  if (value !== 0 && value !== 1) throw reader.refusal(field, `a boolean of ${value}`, '0, 1');
  return value === 1;
}

function exactNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
