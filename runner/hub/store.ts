import {sha256} from '@noble/hashes/sha2.js';
import {bytesToHex, utf8ToBytes} from '@noble/hashes/utils.js';
import type {CheckpointFile} from '../llama/checkpoint_file';

/**
 * Where downloaded models are kept: a folder for each, with its files and a `manifest.json`. `F` is what its files are read
 * as.
 */
export interface ModelStore<F extends CheckpointFile = CheckpointFile> {
  /** What is there, whole or in part, by name. */
  list(): Promise<StoredModel[]>;
  /** Deletes a model; nothing if there is none of this id. @throws Error if it is in use. */
  delete(id: string): Promise<void>;
  /** Bytes that still fit; nothing where that is unknown. */
  room(): Promise<number | undefined>;
  /**
   * Runs with the folder of a model, which nobody else changes meanwhile: another tab waits for its turn; another process is
   * refused.
   */
  use<T>(id: string, run: (folder: ModelFolder<F>) => Promise<T>, signal?: AbortSignal): Promise<T>;
}

export interface StoredModel {
  id: string;
  /** As a person reads it. */
  name: string;
  /** What its files take. */
  bytes: number;
  /** Whether all of it is there. */
  complete: boolean;
  /** What can be typed to get it without asking a hub. */
  addresses: string[];
}

/** A model's folder. Names of files are those of the manifest. */
export interface ModelFolder<F extends CheckpointFile = CheckpointFile> {
  /** Nothing where there is none, or it cannot be read. */
  readManifest(): Promise<Manifest | undefined>;
  /** All of it or nothing is written. */
  writeManifest(manifest: Manifest): Promise<void>;
  /** Bytes stored; 0 where there is no such file. */
  size(name: string): Promise<number>;
  /** To write on at the end of a file, which is made where it is not there. One at a time, and to be closed. */
  append(name: string): Promise<Appender>;
  /** @throws if it is not there. */
  open(name: string): Promise<F>;
  /** Nothing if it is not there. */
  remove(name: string): Promise<void>;
}

export interface Appender {
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  close(): Promise<void>;
}

/** What a model's folder is to hold. */
export interface Manifest {
  name: string;
  addresses: string[];
  files: ManifestFile[];
}

export interface ManifestFile {
  name: string;
  url: string;
  /** Whether a hub has said `size`: what the host sends has to be as long. Else `size` is what the host said last. */
  listed: boolean;
  /** In bytes, as soon as it is known. */
  size?: number;
  /** Of the whole file, in hexadecimal digits, where a hub says it. */
  sha256?: string;
  /** `ETag` or `Last-Modified` of the bytes that are stored, where the host says one. */
  version?: string;
  /** All of it is stored, and checked. */
  complete: boolean;
}

export const MANIFEST = 'manifest.json';

/** What is stored whole and can be typed as this address. */
export async function findStored(store: Pick<ModelStore, 'list'>, address: string): Promise<StoredModel | undefined> {
  return (await store.list()).find(({complete, addresses}) => complete && addresses.includes(address));
}

/** A folder's name for a model: readable, the same for the same name, and allowed on every file system. */
export function modelId(name: string): string {
  const readable = name
    .replace(/^https?:\/\//, '')
    .replace(/[^A-Za-z0-9.]+/g, '-')
    .replace(/^[-.]+/, '');
  const hash = bytesToHex(sha256(utf8ToBytes(name))).slice(0, 8);
  return readable === '' ? hash : `${readable.slice(0, 80)}-${hash}`;
}

/** @throws Error if an id is no name of a folder, which would lead out of the store. */
export function checkId(id: string): void {
  if (!/^[A-Za-z0-9][\w.-]*$/.test(id)) throw new Error(`id is "${id}"; accepted: one of list()`);
}

/** The last part of a path, with nothing that a file system refuses. */
export function storedName(path: string): string {
  return path
    .split('/')
    .pop()!
    .replace(/[^\w.-]+/g, '_');
}

/** Nothing for a text that is no manifest: a file that broke counts as none. */
export function parseManifest(text: string): Manifest | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  const {name, addresses, files} = (json ?? {}) as Partial<Manifest>;
  const isManifest = typeof name === 'string' && Array.isArray(addresses) && Array.isArray(files);
  return isManifest && files.every((file) => typeof file?.name === 'string') ? (json as Manifest) : undefined;
}

export async function describeModel(id: string, folder: ModelFolder): Promise<StoredModel> {
  const manifest = await folder.readManifest();
  const files = manifest?.files ?? [];
  const sizes = await Promise.all(files.map(({name}) => folder.size(name)));
  return {
    id,
    name: manifest?.name ?? id,
    bytes: sizes.reduce((sum, size) => sum + size, 0),
    complete: files.length > 0 && files.every(({complete, size}, i) => complete && size === sizes[i]),
    addresses: manifest?.addresses ?? [],
  };
}
