import type {ElementType, KeyValueCache} from './cache';

/**
 * The tokens that one model has read and written, with their keys and values, so that a prompt that begins with them, such as the next
 * question about the same document, needs only its rest read.
 */
export class Context {
  private tokens: readonly number[] = [];
  private cache?: KeyValueCache;

  /** How many tokens it holds. */
  get length(): number {
    return this.cache?.length ?? 0;
  }

  /** How many tokens of a prompt `take` would give. At least its last one is left to be read: its logits are needed. */
  reusable(prompt: readonly number[]): number {
    const most = Math.min(this.length, prompt.length - 1);
    let shared = 0;
    while (shared < most && this.tokens[shared] === prompt[shared]) ++shared;
    return shared;
  }

  /** The cache of the tokens that a prompt begins with, which leaves the context; nothing where it begins otherwise. */
  take(prompt: readonly number[]): KeyValueCache | undefined {
    const {cache} = this;
    if (cache === undefined) return undefined;
    const shared = this.reusable(prompt);
    this.cache = undefined;
    this.tokens = [];
    if (shared === 0) {
      cache.dispose();
      return undefined;
    }
    cache.truncate(shared);
    return cache;
  }

  /** What the keys and values are held as; nothing in an empty context. */
  get elementType(): ElementType | undefined {
    return this.cache?.elementType;
  }

  /** The first of its tokens. */
  beginning(length: number): readonly number[] {
    this.checkLength(length);
    return this.tokens.slice(0, length);
  }

  /** Keys and values of the first tokens in a layer, as `KeyValueCache.read` gives them. */
  async readLayer(layer: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    this.checkLength(length);
    return this.cache!.read(layer, length);
  }

  /** See `LlamaModel.prepareToContinue`; nothing where it holds nothing. */
  prepareToContinue(model: {prepareToContinue(cache: KeyValueCache): void}): void {
    if (this.cache) model.prepareToContinue(this.cache);
  }

  /** Forgets what comes after the first `length` tokens. */
  truncate(length: number): void {
    if (length === 0) this.dispose();
    this.cache?.truncate(length);
    this.tokens = this.tokens.slice(0, length);
  }

  /** @param tokens of the positions of the cache, which it takes over; more may follow. */
  give(cache: KeyValueCache, tokens: readonly number[]): void {
    this.dispose();
    this.cache = cache;
    this.tokens = tokens;
  }

  dispose(): void {
    this.cache?.dispose();
    this.cache = undefined;
    this.tokens = [];
  }

  private checkLength(length: number): void {
    if (this.length > 0 && Number.isInteger(length) && length >= 1 && length <= this.length) return;
    throw new Error(`${length} tokens are asked for; accepted: 1 to the ${this.length} that the context holds`);
  }
}
