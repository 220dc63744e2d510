import type {Timing} from './statistics';

export type Cell = string;

/** A Markdown table with columns as wide as their cells, so that it also reads well in a terminal. */
export function table(head: readonly Cell[], rows: ReadonlyArray<readonly Cell[]>): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(3, ...all.map((row) => [...row[column]].length)));
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const pad = (cell: string, column: number) => cell + ' '.repeat(widths[column] - [...cell].length);
  return [
    line(head.map(pad)),
    line(widths.map((width) => '-'.repeat(width))),
    ...rows.map((row) => line(row.map(pad))),
  ].join('\n');
}

/** Median and quartiles; timings fewer than ten are marked with their number. */
export function milliseconds({median, low, high, timings}: Timing): string {
  const few = timings < 10 ? `, ${timings} timings` : '';
  return `${short(median)} (${short(low)}–${short(high)}${few})`;
}

/** Three significant digits. */
export function short(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value >= 1 ? value.toFixed(2) : value.toFixed(3);
}
