import * as Plot from '@observablehq/plot';
import {nameChart} from './chart_names';
import {formatPercent} from './format';

export interface Head {
  layer: number;
  head: number;
}

/** Above this many heads, percentages would not fit into the cells. */
const MAX_LABELLED_HEADS = 16;

/**
 * Share of blocks kept by layer and head. The cells are a radio group: arrow keys move, and what is focused is chosen.
 *
 * @param shares by layer, then head, 0 to 1.
 */
export function heatMapChart(
  shares: number[][],
  {width, chosen, onChoose}: {width: number; chosen: Head; onChoose: (head: Head) => void},
): Element {
  const heads = shares[0].length;
  const cells = shares.flatMap((row, layer) => row.map((share, head) => ({layer, head, share})));
  const rowHeight = Math.max(14, Math.min(28, 480 / shares.length));
  const isLabelled = heads <= MAX_LABELLED_HEADS && width / heads >= 36 && rowHeight >= 18;
  const chart = Plot.plot({
    width,
    height: shares.length * rowHeight + 60,
    marginLeft: 48,
    marginTop: 10,
    marginBottom: 40,
    x: {
      label: 'Head',
      labelAnchor: 'center',
      labelArrow: 'none',
      tickSize: 0,
      tickFormat: tickOf(heads),
      padding: 0.06,
    },
    y: {
      label: 'Layer',
      labelAnchor: 'center',
      labelArrow: 'none',
      tickSize: 0,
      tickFormat: tickOf(shares.length),
      padding: 0.1,
    },
    style: {fontSize: '12px', background: 'none'},
    marks: [
      Plot.cell(cells, {
        x: 'head',
        y: 'layer',
        fill: 'var(--heat)',
        // Not a scale of the chart: nothing kept is empty and everything full, whatever else is shown.
        fillOpacity: {value: 'share', scale: null} as unknown as string,
        stroke: 'var(--line)',
        rx: 3,
        title: ({layer, head, share}) => nameOf(layer, head, share),
      }),
      isLabelled
        ? Plot.text(cells, {
            x: 'head',
            y: 'layer',
            text: ({share}) => formatPercent(share).replace(/^(under|over) /, ''),
            pointerEvents: 'none',
          })
        : null,
    ],
  });
  const rects = [...chart.querySelectorAll<SVGRectElement>('g[aria-label=cell] rect')];
  makeRadioGroup(chart, rects, heads, chosen.layer * heads + chosen.head, (index) => {
    const {layer, head} = cells[index];
    onChoose({layer, head});
  });
  rects.forEach((rect, index) => {
    const {layer, head, share} = cells[index];
    rect.setAttribute('aria-label', nameOf(layer, head, share));
  });
  return chart;
}

function nameOf(layer: number, head: number, share: number): string {
  return `Layer ${layer + 1}, head ${head + 1}: ${formatPercent(share)} kept`;
}

/** Numbers from 1, as many as fit. */
function tickOf(count: number): (index: number) => string {
  const every = Math.ceil(count / 32);
  return (index) => (index % every === 0 ? String(index + 1) : '');
}

function makeRadioGroup(
  chart: Element,
  rects: SVGRectElement[],
  columns: number,
  first: number,
  onChoose: (index: number) => void,
): void {
  nameChart(chart, 'radiogroup', 'Share of blocks kept by layer and head: choose a head');
  const mark = (chosen: number) =>
    rects.forEach((rect, index) => {
      rect.setAttribute('role', 'radio');
      rect.setAttribute('aria-checked', String(index === chosen));
      rect.setAttribute('tabindex', index === chosen ? '0' : '-1');
    });
  mark(first);
  const steps: Record<string, number> = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns};
  rects.forEach((rect, index) => {
    const choose = (next: number) => {
      mark(next);
      rects[next].focus();
      onChoose(next);
    };
    rect.addEventListener('click', () => choose(index));
    rect.addEventListener('keydown', (event) => {
      if (event.key === ' ') {
        event.preventDefault();
        choose(index);
      }
      const step = steps[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = index + step;
      const leavesRow = Math.abs(step) === 1 && Math.floor(next / columns) !== Math.floor(index / columns);
      if (next >= 0 && next < rects.length && !leavesRow) choose(next);
    });
  });
}
