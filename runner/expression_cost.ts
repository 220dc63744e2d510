/** What JavaScript's expressions, which backtrack, need more time for than anybody has. */
type Danger = string | undefined;

/** Longer expressions are taken for damage; the longest in use have some hundreds of characters. */
const MOST_CHARACTERS = 10_000;

/** Repeats without an end in a row, for which a text of n characters may take n to this power of steps. Tokenizers have two. */
const MOST_REPEATS = 3;

/** A group, or the whole expression. */
interface Group {
  /** Whether it matches texts of several lengths or in several ways: it repeats something, or has alternatives. */
  varies: boolean;
  /** Repeats without an end in the alternative that is read, and most in one before. */
  repeats: number;
  mostRepeats: number;
}

const QUANTIFIER = /(?:[*+?]|\{(\d*)(,?)(\d*)\})/y;

/**
 * Why an expression of a tokenizer may take exponential time on some text, as `(a+)+$` does; none if it does not. A group that is repeated
 * without an end, or often, must match one length in one way. That refuses some that are harmless; no tokenizer in use has one.
 *
 * @param source in the syntax of Oniguruma, as `tokenizer.json` has it.
 */
export function expressionDanger(source: string): Danger {
  if (source.length > MOST_CHARACTERS) return `has ${source.length} characters; accepted: up to ${MOST_CHARACTERS}`;
  const groups: Group[] = [newGroup()];
  for (let at = 0; at < source.length;) {
    const character = source[at];
    const group = groups.at(-1)!;
    let closed: Group | undefined;
    if (character === '(') {
      groups.push(newGroup());
      at = pastPrefix(source, at + 1);
      continue;
    } else if (character === '|') {
      group.varies = true;
      group.mostRepeats = Math.max(group.mostRepeats, group.repeats);
      group.repeats = 0;
      ++at;
      continue;
    } else if (character === ')' && groups.length > 1) {
      closed = groups.pop()!;
      ++at;
    } else if (character === '[') {
      at = pastClass(source, at);
    } else {
      at += character === '\\' ? escapeLength(source, at) : 1;
    }
    const quantifier = quantifierAt(source, at);
    if (quantifier) at += quantifier.length;
    const outer = groups.at(-1)!;
    if (closed?.varies && quantifier && quantifier.most > 1) {
      return 'repeats a group that matches in several ways; accepted: groups of one length without alternatives';
    }
    outer.varies ||= closed?.varies === true || quantifier?.varies === true;
    outer.repeats +=
      Number(quantifier?.most === Infinity) + (closed ? Math.max(closed.mostRepeats, closed.repeats) : 0);
    if (outer.repeats > MOST_REPEATS) return `repeats more than ${MOST_REPEATS} times in a row; accepted: fewer`;
  }
  return undefined;
}

const newGroup = (): Group => ({varies: false, repeats: 0, mostRepeats: 0});

/** Past `?:`, `?=`, `?<name>` and the like. */
function pastPrefix(source: string, at: number): number {
  const prefix = /\?(?:<?[=!]|<\w*>|[a-z-]*:|>)/y;
  prefix.lastIndex = at;
  return at + (prefix.exec(source)?.[0].length ?? 0);
}

/** Past the bracket that closes a class, which may hold others. */
function pastClass(source: string, start: number): number {
  let depth = 0;
  for (let at = start; at < source.length; ++at) {
    if (source[at] === '\\') ++at;
    else if (source[at] === '[') ++depth;
    // The first character of a class may be a bracket that is meant.
    else if (source[at] === ']' && !/^\[\^?$/.test(source.slice(Math.max(start, at - 2), at)) && --depth === 0)
      return at + 1;
  }
  return source.length;
}

/** Of `\p{Name}`, `\x{1F}` and `\n`. */
function escapeLength(source: string, at: number): number {
  const escape = /\\(?:[pPxu]\{[^}]*\}|.|$)/sy;
  escape.lastIndex = at;
  return escape.exec(source)?.[0].length ?? 1;
}

/** What stands after an atom: how often it is repeated at most, whether that varies, and the length, lazy or possessive signs included. */
function quantifierAt(source: string, at: number): {most: number; varies: boolean; length: number} | undefined {
  QUANTIFIER.lastIndex = at;
  const found = QUANTIFIER.exec(source);
  if (!found) return undefined;
  const [text, least, comma, most] = found;
  const after = source[at + text.length];
  const length = text.length + Number(after === '?' || after === '+');
  if (text === '?') return {most: 1, varies: true, length};
  if (text === '*' || text === '+') return {most: Infinity, varies: true, length};
  if (least === '' && most === '') return undefined;
  const highest = comma === '' ? Number(least) : most === '' ? Infinity : Number(most);
  return {most: highest, varies: comma !== '' && Number(least) !== highest, length};
}
