import {BACKEND_NAMES, isBackendName} from '../../backend_names';
import {MEASURED_LENGTHS, METHODS, type DeviceResult, type MeasuredLength} from '../../engine/device_protocol';

/** Before a result in the address's fragment. */
const PREFIX = '#device=';

/** Longest text that is looked at; a result of all lengths takes a third of it. */
const MOST_CHARACTERS = 8000;

/** A result as the fragment of an address. */
export function writeResultLink(result: DeviceResult): string {
  const bytes = new TextEncoder().encode(JSON.stringify(result));
  const text = btoa(String.fromCharCode(...bytes));
  return PREFIX + text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/**
 * The result in a fragment; nothing where it holds none. Whoever wrote the address may have written anything.
 *
 * @throws Error that says what is wrong with it.
 */
export function readResultLink(hash: string): DeviceResult | undefined {
  if (!hash.startsWith(PREFIX)) return undefined;
  const text = hash.slice(PREFIX.length);
  if (text.length > MOST_CHARACTERS) {
    throw new Error(`it has ${text.length} characters; accepted: at most ${MOST_CHARACTERS}`);
  }
  if (!/^[A-Za-z0-9_-]+$/.test(text)) throw new Error('it is not base64url');
  let json: unknown;
  try {
    const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    json = JSON.parse(new TextDecoder('utf-8', {fatal: true}).decode(bytes));
  } catch {
    throw new Error('it cannot be decoded');
  }
  return checkedResult(json);
}

/** A copy of the parts that a result has. */
export function checkedResult(json: unknown): DeviceResult {
  const {version, date, backend, adapter, features, heads, headDim, threshold, lengths} = partsOf('it', json);
  if (version !== 1) throw new Error(`version is ${show(version)}; accepted: 1`);
  if (typeof date !== 'string' || date.length > 30 || !Number.isFinite(Date.parse(date))) {
    throw new Error(`date is ${show(date)}; accepted: a date`);
  }
  if (typeof backend !== 'string' || !isBackendName(backend)) {
    throw new Error(`backend is ${show(backend)}; accepted: ${BACKEND_NAMES.join(', ')}`);
  }
  // No characters that turn the direction of what stands around them, or cannot be seen.
  if (typeof adapter !== 'string' || adapter.length > 300 || /\p{C}/u.test(adapter)) {
    throw new Error(`adapter is ${show(adapter)}; accepted: at most 300 printed characters`);
  }
  return {
    version,
    date: new Date(date).toISOString(),
    backend,
    adapter,
    features: list('features', features, 64).map((name) => {
      if (typeof name !== 'string' || !/^[a-z0-9-]{1,64}$/.test(name)) {
        throw new Error(`features has ${show(name)}; accepted: names of letters, digits and hyphens`);
      }
      return name;
    }),
    heads: number('heads', heads, 1, 128),
    headDim: number('headDim', headDim, 1, 512),
    threshold: number('threshold', threshold, 0, 1),
    lengths: checkedLengths(lengths),
  };
}

function checkedLengths(given: unknown): MeasuredLength[] {
  let last = 0;
  return list('lengths', given, MEASURED_LENGTHS.length).map((item) => {
    const {length, ms, density, auto} = partsOf('a length', item);
    if (!MEASURED_LENGTHS.some((known) => known === length) || (length as number) <= last) {
      throw new Error(`length is ${show(length)}; accepted: ${MEASURED_LENGTHS.join(', ')}, from short to long`);
    }
    last = length as number;
    if (auto !== 'exact' && auto !== 'sparse') throw new Error(`auto is ${show(auto)}; accepted: exact, sparse`);
    const times = partsOf('ms', ms);
    const known = METHODS.filter((method) => Object.hasOwn(times, method));
    return {
      length: last,
      ms: Object.fromEntries(known.map((method) => [method, number(method, times[method], 1e-6, 1e7)])),
      density: number('density', density, 0, 1),
      auto,
    };
  });
}

function partsOf(name: string, value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw new Error(`${name} is ${show(value)}; accepted: an object`);
  return value as Record<string, unknown>;
}

function list(name: string, value: unknown, most: number): unknown[] {
  if (!Array.isArray(value) || value.length > most) {
    throw new Error(`${name} is ${show(value)}; accepted: a list of at most ${most}`);
  }
  return value as unknown[];
}

function number(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== 'number' || !(value >= least && value <= most)) {
    throw new Error(`${name} is ${show(value)}; accepted: a number from ${least} to ${most}`);
  }
  return value;
}

/** Short, whatever it is. */
function show(value: unknown): string {
  const text = typeof value === 'string' ? JSON.stringify(value) : Array.isArray(value) ? 'a list' : String(value);
  return text.replaceAll(/\p{C}/gu, '').slice(0, 40);
}
