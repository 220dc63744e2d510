import * as Plot from '@observablehq/plot';
import {nameChart} from './chart_names';
import {formatDuration, formatTokens} from './format';
import type {Series} from './timings';

/** Dashes by which lines of one attention are told apart, besides their symbols. */
const DASHES = ['none', '6 3', '2 3', '8 3 2 3', '1 4', '12 4'];

const SYMBOLS = {
  exact: ['circle', 'triangle', 'wye'],
  pbs: ['square', 'diamond', 'star'],
  composed: ['cross'],
} as const;

interface LineStyle {
  colour: string;
  dash: string;
  symbol: Plot.SymbolType;
}

/** Colour says which attention, dash and symbol which settings. */
function styleOf(all: readonly Series[], series: Series): LineStyle {
  const alike = all.filter(({attention}) => attention === series.attention);
  const rank = alike.indexOf(series);
  const symbols = SYMBOLS[series.attention];
  return {
    colour: `var(--${series.attention})`,
    dash: DASHES[rank % DASHES.length],
    symbol: symbols[rank % symbols.length],
  };
}

/** What the axes of a chart say; lengths that are there with points or without. */
export interface TimeAxes {
  length: string;
  time: string;
  lengths: readonly number[];
}

/**
 * Time over length, both logarithmic: a doubling of the length is one step to the right, and quadratic growth a straight line.
 */
export function timeChart(all: readonly Series[], width: number, axes: TimeAxes): Element {
  const points = all.flatMap((series) => series.points);
  const lengths = [...new Set([...axes.lengths, ...points.map(({length}) => length)])];
  const times = points.map(({ms}) => ms);
  const timeDomain: [number, number] = [Math.min(...times) / 1.5, Math.max(...times) * 1.5];
  const chart = Plot.plot({
    width,
    height: Math.min(380, Math.max(240, width * 0.55)),
    marginLeft: 58,
    marginRight: 24,
    marginBottom: 42,
    style: {fontSize: '12px', background: 'none'},
    x: {
      type: 'log',
      base: 2,
      domain: [Math.min(...lengths) / 1.1, Math.max(...lengths) * 1.1],
      ticks: lengths,
      tickFormat: (length: number) => (length >= 1024 && length % 1024 === 0 ? `${length / 1024}k` : String(length)),
      label: axes.length,
      labelAnchor: 'center',
      labelArrow: 'none',
    },
    y: {
      type: 'log',
      domain: timeDomain,
      ticks: timeTicks(timeDomain),
      tickFormat: shortDuration,
      label: axes.time,
      labelArrow: 'none',
      grid: true,
    },
    marks: all.flatMap((series) => {
      const {colour, dash, symbol} = styleOf(all, series);
      return [
        Plot.line(series.points, {
          x: 'length',
          y: 'ms',
          stroke: colour,
          strokeWidth: 2,
          strokeDasharray: dash,
        }),
        Plot.dot(series.points, {
          x: 'length',
          y: 'ms',
          fill: colour,
          symbol,
          r: 5,
          title: ({length, ms}) => `${series.label}\n${formatTokens(length)}: ${formatDuration(ms)}`,
        }),
      ];
    }),
  });
  nameChart(chart, 'img', 'Chart: a line for each attention; the table below has the numbers');
  return chart;
}

/** A piece of a line of the chart, for its legend. */
export function lineSwatch(all: readonly Series[], series: Series): Element {
  const {colour, dash, symbol} = styleOf(all, series);
  const ends = [0, 36];
  return Plot.plot({
    width: 36,
    height: 14,
    margin: 0,
    axis: null,
    style: {background: 'none'},
    x: {domain: ends},
    y: {domain: [-1, 1]},
    marks: [
      Plot.line(ends, {x: (x: number) => x, y: () => 0, stroke: colour, strokeWidth: 2, strokeDasharray: dash}),
      Plot.dot([18], {x: (x: number) => x, y: 0, fill: colour, symbol, r: 5}),
    ],
  });
}

/** 1, 2 and 5 of each power of ten; powers alone where they are many. */
function timeTicks([from, to]: [number, number]): number[] {
  const digits = to / from > 1000 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; ++power) {
    ticks.push(...digits.map((digit) => digit * 10 ** power).filter((tick) => tick >= from && tick <= to));
  }
  return ticks;
}

function shortDuration(ms: number): string {
  return ms < 1000 ? `${Number(ms.toPrecision(3))} ms` : `${Number((ms / 1000).toPrecision(3))} s`;
}
