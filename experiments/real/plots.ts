import * as Plot from '@observablehq/plot';
import {draw, type DrawnPlot} from '../plots';
import {mean} from '../statistics';
import type {RealRun} from './results';
import {withoutThreshold} from './rules';
import {summarise, type SummaryRow} from './summary';

/** The plots of one model. */
export function realPlots(run: RealRun): DrawnPlot[] {
  const rows = summarise(run).filter(({kl}) => kl !== null && kl > 0);
  const drawn: DrawnPlot[] = [];
  const add = (name: string, title: string, options: Plot.PlotOptions) =>
    drawn.push({name, title, svg: draw(title, options)});
  if (rows.length > 0) add('density', 'KL by density', front(rows, 'density', 'density'));
  for (const precision of ['Float32', 'Float16'] as const) {
    const time = `time${precision}` as const;
    const timed = rows.filter((row) => row[time] !== null);
    const title = `KL by time in ${precision.toLowerCase()}`;
    if (timed.length > 0) add(time, title, front(timed, time, 'GPU time, exact = 1'));
  }
  if (run.quality.length > 0) add('layers', 'Density by layer, and of each head', layers(run));
  return drawn;
}

/** A line for each rule over its thresholds. */
function front(rows: readonly SummaryRow[], x: keyof SummaryRow, label: string): Plot.PlotOptions {
  const points = rows.map((row) => ({
    ...row,
    tokens: row.length.toLocaleString('en'),
    series: withoutThreshold(row.rule),
  }));
  const channels = {x, y: 'kl', fx: 'tokens', stroke: 'series'} as const;
  return {
    x: {type: 'log', label, tickFormat: String, ticks: [0.05, 0.1, 0.2, 0.3, 0.5, 1], grid: true, inset: 10},
    y: {type: 'log', label: 'KL', tickFormat: String, grid: true},
    fx: lengthScale(rows),
    color: {legend: true},
    marginLeft: 50,
    marks: [
      Plot.lineY(points, {...channels, z: 'series', sort: x}),
      Plot.dot(points, {...channels, fill: 'series', r: 3}),
    ],
  };
}

/** Means over texts; a point for each head of the defaults, or of the first rule. */
function layers({quality}: RealRun): Plot.PlotOptions {
  const rule = quality.find((row) => row.rule === 'default')?.rule ?? quality[0].rule;
  const rows = quality.filter((row) => row.rule === rule);
  const points = [...new Set(rows.map(({length}) => length))].flatMap((length) => {
    const own = rows.filter((row) => row.length === length);
    return own[0].densities.flatMap((heads, layer) =>
      heads.map((_, head) => ({
        tokens: length.toLocaleString('en'),
        layer,
        density: mean(own.map(({densities}) => densities[layer][head])),
      })),
    );
  });
  return {
    x: {label: 'layer'},
    y: {label: `density, ${rule}`, grid: true, zero: true},
    fx: lengthScale(rows),
    marks: [
      Plot.dot(points, {x: 'layer', y: 'density', fx: 'tokens', stroke: 'steelblue', r: 1.5}),
      Plot.lineY(points, Plot.groupX({y: 'mean'}, {x: 'layer', y: 'density', fx: 'tokens', stroke: 'black'})),
    ],
  };
}

/** Lengths in their order, which is not that of their names. */
function lengthScale(rows: ReadonlyArray<{length: number}>): Plot.ScaleOptions {
  const lengths = [...new Set(rows.map(({length}) => length))].sort((a, b) => a - b);
  return {label: 'tokens', domain: lengths.map((length) => length.toLocaleString('en'))};
}
