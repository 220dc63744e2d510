import {shown} from '../message_text';
import {describeRange, type NumberRange} from './config_limits';

export type Json = Record<string, unknown>;

/** An object of `config.json` whose fields are checked as they are taken; an error names the field by its full path. */
export class Fields {
  /** @param path of the object within the file, `''` for the whole. */
  constructor(
    readonly json: Json,
    private readonly path = '',
  ) {}

  /** The object in a field, or `null` where the field is missing or null. */
  object(field: string): Fields | null {
    const value = this.json[field];
    if (value === undefined || value === null) return null;
    if (typeof value !== 'object' || Array.isArray(value)) throw this.unaccepted(field, 'an object, null');
    return new Fields(value as Json, this.name(field));
  }

  positiveInteger(field: string, byDefault?: number): number {
    const value = this.json[field] ?? byDefault;
    if (!Number.isSafeInteger(value) || (value as number) <= 0)
      throw this.unaccepted(field, 'a positive integer', value);
    return value as number;
  }

  /** An integer of 0 or more. */
  count(field: string, byDefault: number): number {
    const value = this.json[field] ?? byDefault;
    if (!Number.isSafeInteger(value) || (value as number) < 0) {
      throw this.unaccepted(field, 'an integer of 0 or more', value);
    }
    return value as number;
  }

  positiveNumber(field: string, range: NumberRange, byDefault?: number): number {
    const value = this.json[field] ?? byDefault;
    if (typeof value !== 'number' || !(value >= range.min && value <= range.max)) {
      throw this.unaccepted(field, describeRange(range), value);
    }
    return value;
  }

  boolean(field: string, byDefault: boolean): boolean {
    const value = this.json[field] ?? byDefault;
    if (typeof value !== 'boolean') throw this.unaccepted(field, 'true, false');
    return value;
  }

  /** @param byDefault for a field that is missing; null stands for no tokens. */
  tokens(field: string, byDefault: readonly number[]): number[] {
    const given = this.json[field];
    const value = given === undefined ? [...byDefault] : (given ?? []);
    const list: unknown[] = Array.isArray(value) ? value : [value];
    if (!list.every((id) => Number.isInteger(id))) {
      throw this.unaccepted(field, 'a token id, a list of token ids, null');
    }
    return list as number[];
  }

  /** Refuses a field that is there and holds anything else. */
  acceptOnly(field: string, accepted: unknown[]): void {
    const value = this.json[field];
    if (value !== undefined && value !== null && !accepted.includes(value)) {
      throw this.unaccepted(field, accepted.map((a) => JSON.stringify(a)).join(', '));
    }
  }

  unaccepted(field: string, accepted: string, value: unknown = this.json[field]): Error {
    return new Error(`config.json: ${this.name(field)} is ${shown(value)}; accepted: ${accepted}`);
  }

  private name(field: string): string {
    return this.path === '' ? field : `${this.path}.${field}`;
  }
}
