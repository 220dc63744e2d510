import {BLOCK_TYPES, blockTypeOf, describeType, type BlockType} from './block_types';
import type {HeaderReader} from './header_reader';

/** Where a tensor lies in the file, and as what. */
export interface TensorInfo {
  type: BlockType;
  /** Row-major, outermost first: the reverse of the file's. */
  shape: number[];
  /** Byte range within the file. */
  start: number;
  end: number;
}

/** By the file's names, in the file's order. */
export type TensorInfos = Map<string, TensorInfo>;

/** As the file has it: the offset counts from the start of the data, which is known only after the last info. */
interface RelativeInfo {
  type: BlockType;
  shape: number[];
  offset: bigint;
  bytes: bigint;
}

/** Of the format, in bytes. */
const MAX_NAME_BYTES = 64;
const MAX_DIMENSIONS = 4;

/** The least that an info takes: a length, one byte of name, a number of dimensions, one of them, a type, an offset. */
export const LEAST_INFO_BYTES = 8 + 1 + 4 + 8 + 4 + 8;

/**
 * Reads `count` infos. Throws unless every tensor is of a type that is read, has whole blocks in its rows, and lies
 * aligned within the file, in bytes of its own. Bytes of no tensor are accepted; llama.cpp wants each tensor to follow
 * the one before, the format does not.
 *
 * @param alignment of tensors, in bytes; the data begin at the first multiple of it after the infos.
 */
export async function readTensorInfos(reader: HeaderReader, count: number, alignment: number): Promise<TensorInfos> {
  const relative = new Map<string, RelativeInfo>();
  for (let i = 0; i < count; ++i) {
    const name = await reader.string(`name of tensor ${i + 1} of ${count}`, {min: 1, max: MAX_NAME_BYTES});
    const field = `tensor ${JSON.stringify(name)}`;
    if (relative.has(name)) throw reader.refusal(field, 'stands twice', 'each name once');
    reader.claim(600, field);
    relative.set(name, await readInfo(reader, field, alignment));
  }
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  return placeTensors(reader, relative, dataStart);
}

async function readInfo(reader: HeaderReader, field: string, alignment: number): Promise<RelativeInfo> {
  const dimensions = await reader.uint32(`${field}: number of dimensions`);
  if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
    throw reader.refusal(`${field}: number of dimensions`, `${dimensions}`, `1 to ${MAX_DIMENSIONS}`);
  }
  const sizes: bigint[] = [];
  for (let i = 0; i < dimensions; ++i) sizes.push(await reader.uint64(`${field}: dimensions`));

  const number = await reader.uint32(`${field}: type`);
  const type = blockTypeOf(number);
  if (type === undefined) {
    throw reader.refusal(`${field}: type`, describeType(number), Object.keys(BLOCK_TYPES).join(', '));
  }
  const block = BLOCK_TYPES[type];
  if (sizes[0] % BigInt(block.values) !== 0n) {
    throw reader.refusal(
      `${field}: dimensions`,
      `[${sizes}] of ${type}`,
      `a first one that is a multiple of ${block.values}`,
    );
  }
  // As bigints, whose product cannot overflow.
  const values = sizes.reduce((product, size) => product * size);
  const bytes = (values / BigInt(block.values)) * BigInt(block.bytes);
  if (values === 0n || bytes > reader.bytesLeft) {
    throw reader.refusal(
      `${field}: dimensions`,
      `[${sizes}] of ${type}, which take ${bytes} bytes`,
      `at least one value, in up to the ${reader.bytesLeft} bytes left: is the file whole?`,
    );
  }

  const offset = await reader.uint64(`${field}: offset`);
  if (offset % BigInt(alignment) !== 0n) {
    throw reader.refusal(`${field}: offset`, `${offset}`, `multiples of ${alignment}, the file's alignment`);
  }
  return {type, shape: sizes.map(Number).reverse(), offset, bytes};
}

function placeTensors(reader: HeaderReader, relative: Map<string, RelativeInfo>, dataStart: number): TensorInfos {
  const fileBytes = reader.position + reader.bytesLeft;
  const infos: TensorInfos = new Map();
  for (const [name, {type, shape, offset, bytes}] of relative) {
    const end = BigInt(dataStart) + offset + bytes;
    if (end > fileBytes) {
      throw reader.refusal(
        `tensor ${JSON.stringify(name)}: offset`,
        `${offset}, with which it ends at byte ${end}`,
        `ends up to ${fileBytes}, the file's: is it whole?`,
      );
    }
    infos.set(name, {type, shape, start: Number(end - bytes), end: Number(end)});
  }

  const byStart = [...infos].sort(([, a], [, b]) => a.start - b.start);
  for (let i = 1; i < byStart.length; ++i) {
    const [[before, {end}], [name, {start}]] = [byStart[i - 1], byStart[i]];
    if (start < end) {
      throw reader.refusal(
        `tensor ${JSON.stringify(name)}: offset`,
        `it starts at byte ${start}, before the end of ${JSON.stringify(before)} at ${end}`,
        'tensors in bytes of their own',
      );
    }
  }
  return infos;
}
