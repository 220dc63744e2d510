import {closeSync, openSync, readSync} from 'node:fs';

// TODO(lead): GGUFFile.open
/** Metadata of a GGUF file, which is in its first megabytes. */
export function readMetadata(path: string): Map<string, unknown> {
  const bytes = Buffer.alloc(32 << 20);
  const file = openSync(path, 'r');
  readSync(file, bytes, 0, bytes.length, 0);
  closeSync(file);
  let at = 16;
  const take = <T>(length: number, value: T): T => ((at += length), value);
  const u64 = () => take(8, Number(bytes.readBigUInt64LE(at)));
  const u32 = () => take(4, bytes.readUInt32LE(at));
  const text = () => {
    const length = u64();
    return take(length, bytes.toString('utf8', at, at + length));
  };
  const readers: Record<number, () => unknown> = {
    4: u32,
    5: () => take(4, bytes.readInt32LE(at)),
    6: () => take(4, bytes.readFloatLE(at)),
    7: () => take(1, bytes[at] === 1),
    8: text,
    9: () => {
      const read = readers[u32()];
      return Array.from({length: u64()}, read);
    },
    10: u64,
  };
  return new Map(
    Array.from({length: u64()}, () => {
      const key = text();
      return [key, readers[u32()]()];
    }),
  );
}
