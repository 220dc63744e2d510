/** A piece of shader text for each of `count` numbers: loops written out, so that arrays are indexed by constants. */
export function each(count: number, text: (i: number) => string, separator = '\n'): string {
  return Array.from({length: count}, (_, i) => text(i)).join(separator);
}
