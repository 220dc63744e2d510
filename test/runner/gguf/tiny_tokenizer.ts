import {tokenizerOfGGUF} from '../../../runner/gguf/gguf_tokenizer';
import {createTokenizer} from '../../../runner/tokenizer';
import {fixture} from '../../setup/environment';

export type Fields = Record<string, unknown>;

export interface Case {
  text: string;
  ids: number[];
  /** Where it is not the text. */
  decoded?: string;
}

export const GGML = 'tokenizer.ggml.';

export const json = async <T>(name: string): Promise<T> =>
  JSON.parse(new TextDecoder().decode(await fixture(`test/runner/gguf/${name}.json`)));

export const metadataOf = (fields: Fields) => new Map(Object.entries(fields));
export const tokenizerOf = (fields: Fields) => createTokenizer(tokenizerOfGGUF(metadataOf(fields)));
export const replaced = <T>(list: readonly T[], at: number, value: T) => list.map((old, i) => (i === at ? value : old));

/** Metadata of a byte-level tokenizer of 298 tokens, and texts that llama.cpp has read with it. */
export class TinyTokenizer {
  private constructor(
    readonly metadata: Fields,
    readonly cases: readonly Case[],
  ) {}

  static async load(): Promise<TinyTokenizer> {
    const {metadata, tokens} = await json<{metadata: Fields; tokens: Case[]}>('tiny_tokenizer');
    return new TinyTokenizer(metadata, tokens);
  }

  get tokens(): string[] {
    return this.metadata[`${GGML}tokens`] as string[];
  }

  get types(): number[] {
    return this.metadata[`${GGML}token_type`] as number[];
  }

  id(token: string): number {
    return this.tokens.indexOf(token);
  }

  /** The metadata with other fields `tokenizer.ggml.*`; `undefined` takes one out. */
  with(fields: Fields): Fields {
    const all = {...this.metadata};
    for (const [field, value] of Object.entries(fields)) {
      if (value === undefined) delete all[GGML + field];
      else all[GGML + field] = value;
    }
    return all;
  }
}
