import {element} from './dom';
import type {Series} from './timings';

/** Fills a table whose first column names the rows. */
export function showTable(
  table: HTMLElement,
  caption: string,
  head: readonly string[],
  rows: ReadonlyArray<readonly string[]>,
): void {
  table.replaceChildren(
    element('caption', {className: 'visually-hidden'}, caption),
    element('thead', {}, element('tr', {}, ...head.map((words) => element('th', {scope: 'col'}, words)))),
    element(
      'tbody',
      {},
      ...rows.map(([first, ...cells]) =>
        element('tr', {}, element('th', {scope: 'row'}, first), ...cells.map((words) => element('td', {}, words))),
      ),
    ),
  );
}

/** Fills the legend of a chart of lines. */
export function showLegend(
  legend: HTMLElement,
  all: readonly Series[],
  swatch: (all: readonly Series[], series: Series) => Element,
): void {
  legend.replaceChildren(
    ...all.map((series) =>
      element('li', {}, element('span', {'aria-hidden': 'true'}, swatch(all, series)), series.label),
    ),
  );
}
