/** Longest text of a value that goes into a message. */
const LONGEST = 200;

/** Names of a list that go into a message. */
const MOST_NAMES = 6;

/** A value as JSON has it, cut where it is long: files may hold anything. */
export function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  return cut(typeof value === 'bigint' ? `${value}` : JSON.stringify(value));
}

/** A text, cut where it is long. */
export function cut(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

/** Names, and how many there are of which it names none. */
export function listed(names: readonly string[]): string {
  const first = names.slice(0, MOST_NAMES).map(cut).join(', ');
  return names.length > MOST_NAMES ? `${first} and ${names.length - MOST_NAMES} more` : first;
}
