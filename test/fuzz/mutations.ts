import type {Random} from './random';

type Json = unknown;

/** What no field of a file expects. */
const ODD: readonly Json[] = [
  ...[null, true, false, '', 'x', [], {}, [[]], [null]],
  ...[0, -1, 1, 2, 3, 7, 61, 255, 0.5, 1e-320, 1e308, 2 ** 31, 2 ** 32, 2 ** 53, 1e12, -1e9],
  ...['__proto__', 'constructor', 'toString', '\ufeff', '\ud800', '%%%'],
];

const odd = (random: Random): Json => structuredClone(random.pick(ODD));

/** The same JSON value with some of its parts left out, doubled, exchanged or replaced; the given one stays. */
export function mutateJson(value: Json, random: Random): Json {
  const copy = structuredClone(value);
  const holder = {value: copy};
  for (let left = 1 + random.count(3); left > 0; --left) changePart(holder, random);
  return holder.value;
}

function changePart(holder: {value: Json}, random: Random): void {
  const parts = partsOf(holder);
  if (parts.length === 0) return;
  const [parent, key] = random.pick(parts);
  switch (random.below(6)) {
    case 0:
      if (Array.isArray(parent)) parent.splice(Number(key), 1);
      else delete parent[key];
      break;
    case 1: {
      const [other, otherKey] = random.pick(parts);
      parent[key] = structuredClone(other[otherKey]);
      break;
    }
    case 2:
      if (Array.isArray(parent)) parent.push(structuredClone(parent[Number(key)]));
      else parent[`${key}${random.pick(['2', ':0', ' ', '.x'])}`] = structuredClone(parent[key]);
      break;
    case 3:
      parent[key] = random.chance(0.02) ? 'long '.repeat(20_000) : nested(odd(random), random.count(30));
      break;
    case 4:
      parent[key] = typeof parent[key] === 'number' ? nearby(parent[key], random) : odd(random);
      break;
    default:
      parent[key] = odd(random);
  }
}

type Parent = Record<string, Json>;

/** Every place of a value: the object or list that holds it, and its key. */
function partsOf(root: object): [Parent, string][] {
  const found: [Parent, string][] = [];
  const waiting = [root as Parent];
  for (const parent of waiting) {
    for (const key of Object.keys(parent)) {
      found.push([parent, key]);
      const part = parent[key];
      if (typeof part === 'object' && part !== null) waiting.push(part as Parent);
    }
  }
  return found;
}

const nested = (value: Json, depth: number): Json => (depth > 0 ? [nested(value, depth - 1)] : value);

const nearby = (value: number, random: Random): number =>
  random.pick([value + 1, value - 1, -value, value * 2, value / 2, value * 1e6, value + 0.5]);

/** The same bytes with some changed, left out, put in or cut off. */
export function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  let mutated = joined(bytes);
  for (let left = 1 + random.count(5); left > 0 && mutated.length > 0; --left) {
    const at = random.below(mutated.length);
    switch (random.below(5)) {
      case 0:
        mutated[at] ^= 1 << random.below(8);
        break;
      case 1:
        mutated[at] = random.pick([0, 1, 127, 128, 255, random.below(256)]);
        break;
      case 2:
        mutated = mutated.slice(0, at);
        break;
      case 3:
        mutated = joined(mutated.slice(0, at), mutated.slice(at + 1 + random.count(64)));
        break;
      default: {
        const from = random.below(mutated.length);
        const piece = mutated.slice(from, from + 1 + random.count(64));
        mutated = joined(mutated.slice(0, at), piece, mutated.slice(at));
      }
    }
  }
  return mutated;
}

/** The same text with pieces of it, or of others, in other places. */
export function mutateText(text: string, others: readonly string[], random: Random): string {
  let mutated = text;
  for (let left = 1 + random.count(6); left > 0; --left) {
    const at = random.below(mutated.length + 1);
    const end = at + random.count(20);
    const piece = random.pick(others);
    const from = random.below(piece.length + 1);
    const put = random.pick(['', piece.slice(from, from + 1 + random.count(80)), random.pick(others)]);
    mutated = mutated.slice(0, at) + put + mutated.slice(end);
  }
  return mutated.slice(0, 20_000);
}

export function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, {length}) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
