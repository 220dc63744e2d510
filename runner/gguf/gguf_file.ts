import {readBytes, type CheckpointFile} from '../llama/checkpoint_file';
import {BLOCK_TYPES, type BlockType} from './block_types';
import {dequantise} from './dequantise';
import {HeaderReader} from './header_reader';
import {LEAST_ENTRY_BYTES, readMetadata, type MetadataValue} from './metadata';
import {LEAST_INFO_BYTES, readTensorInfos, type TensorInfo, type TensorInfos} from './tensor_infos';

/** Of the format, where `general.alignment` is missing. In bytes. */
const DEFAULT_ALIGNMENT = 32;

/** Read and dequantised at once, in bytes of the file: a large tensor would keep the page from answering meanwhile. */
const PIECE_BYTES = 2 ** 21;

/**
 * A `.gguf` file: a magic number, a version, counts, metadata, a name, type, shape and offset of each tensor, then the
 * tensors' blocks. Little-endian files of versions 2 and 3 are read.
 * The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
 *
 * The whole header is checked on opening, and nothing after it is read, so that a damaged or truncated file is refused
 * before anything is uploaded. What a model needs (its architecture, its tensors) is not checked here.
 */
export class GGUFFile {
  private constructor(
    private readonly file: CheckpointFile,
    readonly metadata: ReadonlyMap<string, MetadataValue>,
    private readonly infos: TensorInfos,
  ) {}

  /** Throws `FILE: FIELD: what came; accepted: what is accepted` at the first field that is not accepted. */
  static async open(file: CheckpointFile): Promise<GGUFFile> {
    const reader = new HeaderReader(file);
    await checkMagicAndVersion(reader);
    const tensors = await reader.count('number of tensors', LEAST_INFO_BYTES);
    const entries = await reader.count('number of metadata entries', LEAST_ENTRY_BYTES);
    const metadata = await readMetadata(reader, entries);
    const infos = await readTensorInfos(reader, tensors, alignmentOf(reader, metadata));
    return new GGUFFile(file, metadata, infos);
  }

  get fileName(): string {
    return this.file.name;
  }

  /** Names of the tensors, in the header's order. */
  names(): string[] {
    return [...this.infos.keys()];
  }

  has(name: string): boolean {
    return this.infos.has(name);
  }

  /** Row-major, outermost first: the reverse of the file's dimensions. */
  shape(name: string): readonly number[] {
    return this.info(name).shape;
  }

  type(name: string): BlockType {
    return this.info(name).type;
  }

  /** The blocks of one tensor as they are in the file, row after row. */
  async readBlocks(name: string): Promise<Uint8Array> {
    const {start, end} = this.info(name);
    return new Uint8Array(await readBytes(this.file, start, end));
  }

  /** The blocks of rows [first, end) of a matrix. */
  async readRows(name: string, first: number, end: number): Promise<Uint8Array> {
    const {start, end: last, shape} = this.info(name);
    const rowBytes = (last - start) / shape[0];
    return new Uint8Array(await readBytes(this.file, start + first * rowBytes, start + end * rowBytes));
  }

  /** The values of one tensor, row-major, as float32. */
  async read(name: string): Promise<Float32Array> {
    const {start, end, type} = this.info(name);
    const block = BLOCK_TYPES[type];
    const values = new Float32Array(((end - start) / block.bytes) * block.values);
    const pieceBlocks = Math.floor(PIECE_BYTES / block.bytes);
    for (let at = start, from = 0; at < end; at += pieceBlocks * block.bytes, from += pieceBlocks * block.values) {
      const piece = await readBytes(this.file, at, Math.min(at + pieceBlocks * block.bytes, end));
      dequantise(type, new Uint8Array(piece), values.subarray(from, from + pieceBlocks * block.values));
    }
    return values;
  }

  private info(name: string): TensorInfo {
    const info = this.infos.get(name);
    if (info === undefined) {
      throw new Error(`${this.fileName}: tensor "${name}" is missing; the file has ${this.infos.size} others`);
    }
    return info;
  }
}

async function checkMagicAndVersion(reader: HeaderReader): Promise<void> {
  const magic = await reader.bytes(4, 'magic');
  const letters = String.fromCharCode(...new Uint8Array(magic.buffer, magic.byteOffset, 4));
  if (letters !== 'GGUF') {
    throw reader.refusal('magic', JSON.stringify(letters), '"GGUF", with which every GGUF file begins');
  }
  const bytes = await reader.bytes(4, 'version');
  const version = bytes.getUint32(0, true);
  if (version === 2 || version === 3) return;
  const swapped = bytes.getUint32(0, false);
  const bigEndian = swapped >= 1 && swapped <= 3;
  throw reader.refusal(
    'version',
    bigEndian ? `${swapped} of a big-endian file` : `${version}`,
    '2 and 3 of little-endian files',
  );
}

/** Of the tensors, in bytes. */
function alignmentOf(reader: HeaderReader, metadata: ReadonlyMap<string, MetadataValue>): number {
  const alignment = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (typeof alignment !== 'number' || !POWERS_OF_TWO.includes(alignment)) {
    const came = typeof alignment === 'number' ? `${alignment}` : `a ${typeof alignment}`;
    throw reader.refusal('metadata "general.alignment"', came, 'a power of two up to 2^31');
  }
  return alignment;
}

const POWERS_OF_TWO = Array.from({length: 32}, (_, exponent) => 2 ** exponent);
