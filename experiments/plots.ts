import * as Plot from '@observablehq/plot';
import {parseHTML} from 'linkedom';
import {ANSWERED, answers, costsOf, paretoFront} from './pareto';
import type {Run, SweepRow} from './results';

export interface DrawnPlot {
  /** File name without its ending. */
  name: string;
  title: string;
  svg: string;
}

/** The plots of one sub-command. */
export function plots(run: Run): DrawnPlot[] {
  const {experiment} = run;
  const drawn: DrawnPlot[] = [];
  const add = (name: string, title: string, options: Plot.PlotOptions) =>
    drawn.push({name: `${experiment}-${name}`, title, svg: draw(title, options)});
  if (run.sweep) {
    sweepPlots(run.sweep, add);
    add('front', FRONT_TITLE, frontPlot(run.sweep));
  }
  return drawn;
}

type Add = (name: string, title: string, options: Plot.PlotOptions) => void;

interface Point {
  tokens: string;
  task: string;
  series: string;
  density: number;
  loss: number;
  lossLow: number;
  lossHigh: number;
  needle: number;
  needleLow: number;
  needleHigh: number;
  speedUp?: number;
}

function sweepPlots(rows: readonly SweepRow[], add: Add): void {
  const points = rows.filter(({variant}) => variant !== 'exact').flatMap(pointsOf);
  if (points.length === 0) return;
  // Loss, blocks and time are of all prompts, whatever their task; answers are of one.
  const tasks = [...new Set(points.map(({task}) => task))];
  const first = points.filter(({task}) => task === tasks[0]);
  const byTask = tasks.length > 1 ? ({fy: 'task'} as const) : {};
  const channels = {x: 'density', fx: 'tokens', stroke: 'series', z: 'series'} as const;
  const marks = (of: readonly Point[], y: string, low: string, high: string, facet: {fy?: 'task'} = {}) => [
    Plot.ruleX(of, {...channels, ...facet, y1: low, y2: high}),
    Plot.lineY(of, {...channels, ...facet, y, sort: 'density'}),
    Plot.dot(of, {...channels, ...facet, y, fill: 'series', r: 2.5}),
  ];
  const common = {
    x: {label: 'density', grid: true, inset: 8},
    fx: lengthScale(rows),
    color: {legend: true},
    marginRight: 60,
  };
  add('loss', 'Loss above exact attention', {
    ...common,
    marginLeft: 50,
    y: {label: 'nats', grid: true},
    marks: [Plot.ruleY([0]), ...marks(first, 'loss', 'lossLow', 'lossHigh')],
  });
  add('needle', 'Questions answered', {
    ...common,
    y: {label: 'share', domain: [0, 1], ticks: 2, grid: true},
    height: Math.max(320, 80 + 70 * tasks.length),
    marks: marks(points, 'needle', 'needleLow', 'needleHigh', byTask),
  });
  const timed = first.filter(({speedUp}) => speedUp !== undefined);
  if (timed.length > 0) {
    add('speed-up', 'Speed-up of attention over exact', {
      ...common,
      y: {label: '×', grid: true},
      marks: [
        Plot.ruleY([1]),
        Plot.lineY(timed, {...channels, y: 'speedUp', sort: 'density'}),
        Plot.dot(timed, {...channels, y: 'speedUp', fill: 'series', r: 2.5}),
      ],
    });
  }
}

const FRONT_TITLE = `Loss by time; filled: ${100 * ANSWERED}% of exact attention's answers, gray: their front`;

/** Losses below this are drawn here: they are within the noise, some of them below zero. */
const LEAST_LOSS = 1e-4;

/** Loss by time; filled where questions are answered as by exact attention, with the front of those. */
function frontPlot(rows: readonly SweepRow[]): Plot.PlotOptions {
  const points = rows
    .filter(({variant}) => variant !== 'exact')
    .map((row) => {
      const {work, loss} = costsOf(row);
      const rule = String(row.settings.rule);
      const series = {tokens: row.length.toLocaleString('en'), rule, answers: answers(row, rows)};
      return {work, loss: Math.max(loss, LEAST_LOSS), ...series};
    });
  const lengths = [...new Set(points.map(({tokens}) => tokens))];
  const front = lengths.flatMap((tokens) =>
    paretoFront(
      points.filter((point) => point.tokens === tokens && point.answers),
      (point) => point,
    ),
  );
  const timed = rows.some(({time}) => time !== undefined);
  const channels = {x: 'work', y: 'loss', fx: 'tokens'} as const;
  return {
    x: {
      type: 'log',
      label: timed ? 'time, exact = 1' : 'density',
      ticks: [0.2, 0.5, 1],
      tickFormat: String,
      grid: true,
    },
    y: {type: 'log', label: `nats above exact, ${LEAST_LOSS} at least`, tickFormat: String, grid: true},
    fx: lengthScale(rows),
    color: {legend: true},
    marginLeft: 50,
    marks: [
      Plot.lineY(front, {...channels, stroke: 'lightgray', strokeWidth: 7}),
      Plot.lineY(points, {...channels, stroke: 'rule', z: 'rule', sort: 'work', strokeOpacity: 0.4}),
      Plot.dot(points, {...channels, stroke: 'rule', fill: 'white', r: 3}),
      Plot.dot(
        points.filter((point) => point.answers),
        {...channels, fill: 'rule', r: 3.5},
      ),
    ],
  };
}

/** Lengths in their order, which is not that of their names. */
function lengthScale(rows: ReadonlyArray<{length: number}>): Plot.ScaleOptions {
  const lengths = [...new Set(rows.map(({length}) => length))].sort((a, b) => a - b);
  return {label: 'tokens', domain: lengths.map((length) => length.toLocaleString('en'))};
}

/** A point for each task of a row; a series for each rule. */
function pointsOf(row: SweepRow): Point[] {
  const tasks = Object.entries(row.needle);
  return tasks.map(([task, {share}]) => ({
    task,
    tokens: row.length.toLocaleString('en'),
    series: String(row.settings.rule),
    density: row.density,
    loss: row.lossDifference.value,
    lossLow: finite(row.lossDifference.low, row.lossDifference.value),
    lossHigh: finite(row.lossDifference.high, row.lossDifference.value),
    needle: share.value,
    needleLow: share.low,
    needleHigh: share.high,
    speedUp: row.time && row.time.exact / row.time.sparse,
  }));
}

const finite = (x: number, otherwise: number) => (Number.isFinite(x) ? x : otherwise);

/** Height of the title above a plot. */
const TITLE = 18;

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Draws a plot as one SVG with its legend beside it: Plot puts legends into HTML around the plot, which an image in Markdown
 * cannot hold.
 */
export function draw(title: string, options: Plot.PlotOptions): string {
  const {document} = parseHTML('<!doctype html><html><body></body></html>');
  const legend = options.color?.legend === true;
  const width = options.width ?? 760;
  const plot = Plot.plot({
    marginTop: 34,
    height: 320,
    style: {background: 'white', fontFamily: 'sans-serif'},
    ...options,
    width,
    color: {...options.color, legend: false},
    document: document as unknown as Document,
  }) as unknown as SVGSVGElement & {scale: typeof Plot.scale};
  const names = legend
    ? ((plot.scale as unknown as (name: string) => {domain: string[]} | undefined)('color')?.domain ?? [])
    : [];
  const colors = names.map((name) =>
    (plot.scale as unknown as (name: string) => {apply: (value: string) => string})('color').apply(name),
  );
  const longest = Math.max(0, ...names.map((name) => String(name).length));
  const legendWidth = names.length === 0 ? 0 : 30 + 6.2 * longest;
  const height = TITLE + Math.max(Number(plot.getAttribute('height')), 50 + 16 * names.length);
  const entries = names.map(
    (name, i) =>
      `<circle cx="${width + 8}" cy="${40 + 16 * i}" r="4" fill="${colors[i]}"/>` +
      `<text x="${width + 18}" y="${44 + 16 * i}">${escape(String(name))}</text>`,
  );
  plot.setAttribute('xmlns', SVG);
  plot.setAttribute('y', String(TITLE));
  return [
    `<svg xmlns="${SVG}" width="${width + legendWidth}" height="${height}" viewBox="0 0 ${width + legendWidth} ${height}" font-family="sans-serif" font-size="11">`,
    '<rect width="100%" height="100%" fill="white"/>',
    plot.outerHTML,
    `<text x="12" y="16" font-size="13" font-weight="bold">${escape(title)}</text>`,
    ...entries,
    '</svg>\n',
  ].join('\n');
}

const escape = (text: string) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
