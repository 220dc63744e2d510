import {cut, shown} from '../message_text';
import {duplicateKey} from './duplicate_key';

/**
 * A file that the user picked or the page fetched; a browser's `File` is one. It is read in slices, because the
 * weights of a model can be longer than the longest `ArrayBuffer`.
 */
export interface CheckpointFile {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  slice(start: number, end: number): {arrayBuffer(): Promise<ArrayBuffer>};
}

/** Bytes `start .. end - 1`. */
export async function readBytes(file: CheckpointFile, start: number, end: number): Promise<ArrayBuffer> {
  let bytes: ArrayBuffer;
  try {
    bytes = await file.slice(start, end).arrayBuffer();
  } catch (error) {
    throw new Error(`${file.name}: could not be read: ${(error as Error).message}`, {cause: error});
  }
  if (bytes.byteLength !== end - start) {
    throw new Error(
      `${file.name}: got ${bytes.byteLength} bytes at ${start}, wanted ${end - start}: has the file changed meanwhile?`,
    );
  }
  return bytes;
}

export async function readJsonObject(file: CheckpointFile): Promise<Record<string, unknown>> {
  return parseJsonObject(await readBytes(file, 0, file.size), file.name);
}

/** @param what names the text in the error. */
export function parseJsonObject(bytes: ArrayBuffer, what: string): Record<string, unknown> {
  return parseObject(what, () => new TextDecoder().decode(bytes));
}

/**
 * As {@link parseJsonObject}, of a text that means one thing to every reader: UTF-8 without a byte order mark, in which no key of an
 * object stands twice.
 */
export function parseStrictJsonObject(bytes: ArrayBuffer, what: string): Record<string, unknown> {
  let text = '';
  const json = parseObject(what, () => (text = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(bytes)));
  const twice = duplicateKey(text);
  if (twice !== undefined) throw new Error(`${what}: ${shown(twice)} stands twice; accepted: each key once`);
  return json;
}

function parseObject(what: string, read: () => string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(read());
  } catch (error) {
    throw new Error(`${what}: not JSON: ${cut((error as Error).message)}`, {cause: error});
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    const got = json === null ? 'null' : Array.isArray(json) ? 'a list' : `a ${typeof json}`;
    throw new Error(`${what}: got ${got}; accepted: a JSON object`);
  }
  return json as Record<string, unknown>;
}
