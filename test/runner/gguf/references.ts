import type {CheckpointFile} from '../../../runner/llama/checkpoint_file';
import {fixture} from '../../setup/environment';
import type {WrittenEntry} from './write_gguf';

/** What README.md describes. */
export interface ValidReference {
  metadata: Record<string, WrittenEntry>;
  /** `offset` is from the start of the file, in bytes. */
  tensors: {
    name: string;
    type: string;
    dims: number[];
    offset: number;
    bytes: number;
    first: number[];
    f32_sha256: string;
  }[];
}

export interface BrokenFile {
  file: string;
  /** Where a reader can tell; `model`: with the needs of a model in hand. */
  stage?: string;
  expect: 'refuse' | 'accept' | 'either';
  wrong: string;
  bytes: Uint8Array<ArrayBuffer>;
}

export interface BlocksReference {
  of: string;
  type: string;
  raw: Uint8Array;
  /** null for infinities. */
  values: (number | null)[];
}

export async function readReference(name: string): Promise<unknown> {
  return JSON.parse(new TextDecoder().decode(await fixture(`test/runner/gguf/${name}`)));
}

export async function readBlocksReference(): Promise<BlocksReference[]> {
  const {blocks} = (await readReference('blocks.json')) as {blocks: (BlocksReference & {raw: string})[]};
  return blocks.map((block) => ({...block, raw: fromHexadecimal(block.raw)}));
}

/** An edit is made at a byte of the base file: so many bytes out, these in. */
type Edit = [at: number, out: number, into: string];

export async function readBrokenFiles(): Promise<BrokenFile[]> {
  const {base, files} = (await readReference('bad.json')) as {base: string; files: (BrokenFile & {edits: Edit[]})[]};
  return files.map(({edits, ...file}) => {
    let [digits, at] = ['', 0];
    for (const [from, out, into] of edits) {
      digits += base.slice(2 * at, 2 * from) + into;
      at = from + out;
    }
    return {...file, bytes: fromHexadecimal(digits + base.slice(2 * at))};
  });
}

function fromHexadecimal(digits: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({length: digits.length / 2}, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

/** A file of any size, made where it is read, that counts what is. */
export class MadeFile implements CheckpointFile {
  readonly name = 'made.gguf';
  bytesRead = 0;

  /** @param start the first bytes; zeros follow. */
  constructor(
    private readonly start: Uint8Array,
    readonly size: number,
  ) {}

  slice(start: number, end: number): {arrayBuffer(): Promise<ArrayBuffer>} {
    this.bytesRead += end - start;
    // Else a reader that believes the file would go on for minutes.
    if (this.bytesRead > 2 ** 25) throw new Error(`${this.bytesRead} bytes were read`);
    const bytes = new Uint8Array(end - start);
    bytes.set(this.start.subarray(start, end));
    return {arrayBuffer: () => Promise.resolve(bytes.buffer)};
  }
}
