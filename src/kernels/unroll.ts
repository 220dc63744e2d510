/**
 * Repeats a piece of shader text, one line an index. Loops over an invocation's own rows and columns are written out, so
 * that arrays are indexed by constants alone: a compiler that does not unroll a loop keeps its arrays in memory instead
 * of registers.
 */
export function unroll(count: number, text: (i: number) => string, separator = '\n    '): string {
  return Array.from({length: count}, (_, i) => text(i)).join(separator);
}
