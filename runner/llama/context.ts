import type {KeyValueCache} from './cache';

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

  /**
   * The cache of the tokens that a prompt begins with, which leaves the context; nothing where it begins otherwise. At least the
   * prompt's last token is left to be read: its logits are needed.
   */
  take(prompt: readonly number[]): KeyValueCache | undefined {
    const {cache, tokens} = this;
    if (cache === undefined) return undefined;
    const most = Math.min(cache.length, prompt.length - 1);
    let shared = 0;
    while (shared < most && tokens[shared] === prompt[shared]) ++shared;
    this.cache = undefined;
    this.tokens = [];
    if (shared === 0) {
      cache.dispose();
      return undefined;
    }
    cache.truncate(shared);
    return cache;
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
}
