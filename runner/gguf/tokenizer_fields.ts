/** What a GGUF file says of its model beside the tensors. Arrays may be typed ones; 64-bit integers are bigints. */
export type Metadata = ReadonlyMap<string, unknown>;

/** `tokenizer.ggml.token_type` of a token. */
export const TokenType = {normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6} as const;

const LAST_TYPE = TokenType.byte;

/** The fields `tokenizer.ggml.*` of a GGUF file, checked as they are taken; an error names the field and what it holds. */
export class TokenizerFields {
  /** @param fileName as errors name the file. */
  constructor(
    private readonly metadata: Metadata,
    private readonly fileName = 'GGUF',
  ) {}

  /** Text of each token. What is empty gets the name that llama.cpp gives it, as no two tokens may have one text. */
  tokens(): string[] {
    const tokens = this.strings('tokens').map((token, id) => (token === '' ? `[EMPTY_${id}]` : token));
    const ids = new Map<string, number>();
    for (const [id, token] of tokens.entries()) {
      const other = ids.get(token);
      if (other !== undefined) {
        throw this.unaccepted(`tokens[${id}]`, `a text that token ${other} does not have`, token);
      }
      ids.set(token, id);
    }
    return tokens;
  }

  /** `TokenType` of each token. */
  types(count: number): number[] {
    const types = this.numbers('token_type', count);
    const at = types.findIndex((type) => !Number.isInteger(type) || type < 1 || type > LAST_TYPE);
    if (at >= 0) throw this.unaccepted(`token_type[${at}]`, `1 to ${LAST_TYPE}`, types[at]);
    return types;
  }

  string(field: string, accepted: readonly string[]): string {
    const value = this.value(field);
    if (typeof value !== 'string' || !accepted.includes(value)) throw this.unaccepted(field, accepted.join(', '));
    return value;
  }

  strings(field: string): string[] {
    const value = this.value(field);
    if (!Array.isArray(value)) throw this.unaccepted(field, 'an array of strings');
    const at = value.findIndex((element) => typeof element !== 'string');
    if (at >= 0) throw this.unaccepted(`${field}[${at}]`, 'a string', value[at]);
    return value as string[];
  }

  numbers(field: string, count: number): number[] {
    const value = this.value(field);
    const numbers = isArray(value) ? Array.from(value, numberOf) : [];
    if (numbers.length !== count || numbers.some(Number.isNaN)) {
      throw this.unaccepted(field, `an array of ${count} numbers, one for each token`);
    }
    return numbers;
  }

  boolean(field: string, byDefault: boolean): boolean {
    const value = this.value(field) ?? byDefault;
    if (typeof value !== 'boolean') throw this.unaccepted(field, 'true, false');
    return value;
  }

  /** Id of a token among `count`, or what stands for a missing field. */
  token(field: string, count: number, byDefault?: number): number | undefined {
    const value = this.value(field) ?? byDefault;
    if (value === undefined) return undefined;
    const id = numberOf(value);
    if (!Number.isInteger(id) || id < 0 || id >= count)
      throw this.unaccepted(field, `a token id from 0 to ${count - 1}`);
    return id;
  }

  has(field: string): boolean {
    return this.value(field) !== undefined;
  }

  unaccepted(field: string, accepted: string, value = this.value(field)): Error {
    return new Error(`${this.fileName}: tokenizer.ggml.${field} is ${described(value)}; accepted: ${accepted}`);
  }

  private value(field: string): unknown {
    return this.metadata.get(`tokenizer.ggml.${field}`);
  }
}

function isArray(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}

/** A number or a 64-bit integer as a number; anything else is NaN. */
function numberOf(value: unknown): number {
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : NaN;
}

function described(value: unknown): string {
  if (value === undefined) return 'missing';
  if (isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  return String(value);
}
