/**
 * The first key that stands twice in an object of a JSON text, however deep; none if each stands once. `JSON.parse` keeps the last one and
 * says nothing.
 *
 * @param text JSON that has been parsed without an error.
 */
export function duplicateKey(text: string): string | undefined {
  /** Keys of the objects that are open; null for a list. */
  const open: Array<Set<string> | null> = [];
  for (let at = 0; at < text.length; ++at) {
    const character = text[at];
    if (character === '{') open.push(new Set());
    else if (character === '[') open.push(null);
    else if (character === '}' || character === ']') open.pop();
    else if (character === '"') {
      const end = endOfString(text, at);
      const keys = open.at(-1);
      if (keys && isKey(text, end)) {
        const key = JSON.parse(text.slice(at, end)) as string;
        if (keys.has(key)) return key;
        keys.add(key);
      }
      at = end - 1;
    }
  }
  return undefined;
}

/** Past the closing quote. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
  return at + 1;
}

/** Whether a colon follows. */
function isKey(text: string, at: number): boolean {
  while (' \t\n\r'.includes(text[at])) ++at;
  return text[at] === ':';
}
