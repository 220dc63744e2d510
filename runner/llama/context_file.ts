import {shown} from '../message_text';
import type {ElementType} from './cache';
import {parseJsonObject, readBytes, type CheckpointFile} from './checkpoint_file';
import type {Context} from './context';
import {nextTask} from './layer_progress';
import type {LlamaModel} from './model';

/**
 * A file of a context: magic, version and length of the header (uint32 each, low byte first), a JSON header, then for each layer keys
 * `[keyValueHeads, tokens, headDim]` and values.
 */
const MAGIC = 'PBSCTX\r\n';
/** To be raised when the layout changes, or the runner computes other keys and values than before. */
const VERSION = 1;
const PREFIX_BYTES = 16;

const ELEMENT_BYTES: Record<ElementType, number> = {float16: 2, float32: 4};

interface Header {
  /** What the caller says of the model, and of all else that the keys and values depend on. */
  identity: string;
  layers: number;
  keyValueHeads: number;
  headDim: number;
  elementType: ElementType;
  /** Ids. */
  tokens: readonly number[];
}

/** What keys and values are computed by. */
export type ContextModel = Pick<LlamaModel, 'config' | 'maxLength' | 'newCache'>;

export interface LayerHooks {
  /** Ends the work after the layer that is copied when it is aborted; the call rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Told after each layer: layers so far, and in all. */
  onLayer?: (done: number, total: number) => void;
}

/** The beginning of a context as a file, of which no more than a layer is in memory at a time. */
export class ContextWriter {
  private readonly head: Uint8Array<ArrayBuffer>;
  /** What it takes. */
  readonly bytes: number;

  /** @param length tokens that are written, of those that the context holds. */
  constructor(
    private readonly context: Context,
    private readonly model: ContextModel,
    identity: string,
    private readonly length: number,
  ) {
    const tokens = context.beginning(length);
    const header = {identity, ...describe(model), tokens};
    this.head = writeHead(header);
    this.bytes = this.head.length + header.layers * layerBytes(header);
  }

  /** @param write appends to the file. The context stays as it is until the promise is there. */
  async write(write: (bytes: Uint8Array<ArrayBuffer>) => Promise<void>, hooks: LayerHooks = {}): Promise<void> {
    const {layers} = this.model.config;
    await write(this.head);
    await eachLayer(layers, hooks, async (layer) => write(await this.context.readLayer(layer, this.length)));
  }
}

/** A file of a context that fits a model; nothing of its keys and values has been read yet. */
export class ContextFile {
  private constructor(
    private readonly file: CheckpointFile,
    private readonly model: ContextModel,
    private readonly header: Header,
    private readonly start: number,
  ) {}

  /**
   * Reads the header of a file, and checks it and how long the file is.
   *
   * @param identity that the file was written with.
   * @throws Error that names the file, the field, what came and what is accepted.
   */
  static async open(file: CheckpointFile, model: ContextModel, identity: string): Promise<ContextFile> {
    const refuse = (field: string, got: unknown, accepted: unknown): Error =>
      new Error(`${file.name}: ${field} is ${shown(got)}; accepted: ${String(accepted)}`);
    if (file.size < PREFIX_BYTES) throw refuse('size', file.size, `${PREFIX_BYTES} bytes or more`);
    const prefix = await readBytes(file, 0, PREFIX_BYTES);
    const magic = String.fromCharCode(...new Uint8Array(prefix, 0, MAGIC.length));
    if (magic !== MAGIC) throw refuse('magic', magic, JSON.stringify(MAGIC));
    const view = new DataView(prefix);
    const version = view.getUint32(8, true);
    if (version !== VERSION) throw refuse('version', version, VERSION);
    const headerBytes = view.getUint32(12, true);
    const start = PREFIX_BYTES + headerBytes;
    if (start > file.size) throw refuse('header length', headerBytes, `at most ${file.size - PREFIX_BYTES}`);
    const json = parseJsonObject(await readBytes(file, PREFIX_BYTES, start), `${file.name}: header`);

    const expected = {identity, ...describe(model)};
    for (const [field, value] of Object.entries(expected)) {
      if (json[field] !== value) throw refuse(field, json[field], shown(value));
    }
    const {tokens} = json;
    const {maxLength, config} = model;
    if (!Array.isArray(tokens)) throw refuse('tokens', tokens, 'a list of ids');
    if (tokens.length < 1 || tokens.length > maxLength) {
      throw refuse('number of tokens', tokens.length, `1 to ${maxLength}`);
    }
    const isToken = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < config.vocabSize;
    const wrong = tokens.findIndex((id) => !isToken(id));
    if (wrong >= 0) throw refuse(`tokens[${wrong}]`, tokens[wrong], `integers from 0 to ${config.vocabSize - 1}`);
    const header: Header = {...expected, tokens: tokens as number[]};
    const bytes = start + header.layers * layerBytes(header);
    if (file.size !== bytes) throw refuse('size', file.size, `${bytes} bytes`);
    return new ContextFile(file, model, header, start);
  }

  get tokens(): readonly number[] {
    return this.header.tokens;
  }

  /**
   * Puts keys and values onto the backend, into the place of what the context holds. After an error it is empty.
   *
   * @throws Error if the file cannot be read; the signal's reason where that ended it.
   */
  async readInto(context: Context, hooks: LayerHooks = {}): Promise<void> {
    // Before the new ones come, so that there is room for them.
    context.dispose();
    const {tokens, layers} = this.header;
    const size = layerBytes(this.header);
    const cache = this.model.newCache();
    try {
      await eachLayer(layers, hooks, async (layer) => {
        const at = this.start + layer * size;
        cache.restore(layer, tokens.length, new Uint8Array(await readBytes(this.file, at, at + size)));
      });
    } catch (error) {
      cache.dispose();
      throw error;
    }
    context.give(cache, tokens);
  }
}

async function eachLayer(layers: number, hooks: LayerHooks, run: (layer: number) => Promise<void>): Promise<void> {
  const {signal, onLayer} = hooks;
  for (let layer = 0; layer < layers; ++layer) {
    signal?.throwIfAborted();
    await run(layer);
    onLayer?.(layer + 1, layers);
    // Whoever wants to stop is heard, though a worker's file calls never leave its thread.
    await nextTask();
  }
  signal?.throwIfAborted();
}

function describe(model: ContextModel): Omit<Header, 'identity' | 'tokens'> {
  const {layers, keyValueHeads, headDim} = model.config;
  // An empty cache holds nothing on the backend.
  return {layers, keyValueHeads, headDim, elementType: model.newCache().elementType};
}

function layerBytes({keyValueHeads, headDim, tokens, elementType}: Header): number {
  return 2 * keyValueHeads * tokens.length * headDim * ELEMENT_BYTES[elementType];
}

function writeHead(header: Header): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(PREFIX_BYTES + json.length);
  head.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(head.buffer);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, json.length, true);
  head.set(json, PREFIX_BYTES);
  return head;
}
