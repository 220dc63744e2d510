import {short, table} from '../../bench/table';
import {STAGES} from '../../bench/results';
import {mean} from '../statistics';
import type {QualityRow, RealRun, TaskRow, TimeRow} from './results';
import {EXACT} from './results';
import {PLACEMENTS} from './ruler';
import {withoutThreshold} from './rules';
import {type SummaryRow, selectionShare, summarise, timeShare} from './summary';

/** The tables of one model, in Markdown. */
export function realReport(run: RealRun): string {
  const lengths = [
    ...new Set([...run.quality, ...run.time, ...run.firstToken, ...run.tasks].map(({length}) => length)),
  ].sort((a, b) => a - b);
  const sections = [
    `# ${run.model}${run.matrixUnits ? '' : ', without matrix units'}`,
    `${run.date.slice(0, 10)}: ${run.host} on ${run.adapter}. Written by`,
    `\`\`\`sh\n${run.commands.join('\n')}\n\`\`\``,
    TEXT,
    ...lengths.flatMap((length) => {
      const at = <Row extends {length: number}>(rows: readonly Row[]) => rows.filter((row) => row.length === length);
      return [
        `## ${length.toLocaleString('en')} tokens`,
        ...(at(run.quality).length > 0 ? [qualityTable(at(run.quality), summarise(run))] : []),
        ...(at(run.time).length > 0 ? [timeTable(at(run.time))] : []),
        ...(at(run.firstToken).length > 0 ? [firstTokenTable(at(run.firstToken))] : []),
        ...(at(run.tasks).length > 0 ? [taskTable(at(run.tasks))] : []),
      ];
    }),
    ...noted('Left out', run.skipped),
    ...noted('Errors of the device: the results beside them are worth nothing', run.errors),
  ];
  return `${sections.join('\n\n')}\n`;
}

const TEXT =
  'Density: kept of the visible blocks, mean over layers and heads. KL(exact ‖ sparse) of the next-token distribution, the share of ' +
  'rows whose most likely token is the same, and the loss above exact attention, on rows spread over each text. × oracle: KL over ' +
  'that of the oracle at the same density, between its thresholds. Kept: the true attention in the kept blocks, mean over rows, heads and ' +
  'layers, and over the worst 5% of them. Means over texts; the last column is KL by text. Times are of the GPU, a layer, as shares of exact attention ' +
  'in the same precision. Answers: right ones of those asked, by how many tokens before the end the question ends.';

function qualityTable(rows: readonly QualityRow[], summary: readonly SummaryRow[]): string {
  const [{length}] = rows;
  const oracle = summary.filter((row) => row.length === length && withoutThreshold(row.rule) === 'oracle');
  return table(
    ['rule', 'density', 'KL', '× oracle', 'median', 'same token', 'loss', 'kept', 'kept, worst 5%', 'KL by text'],
    unique(rows.map(({rule}) => rule)).map((rule) => {
      const own = rows.filter((row) => row.rule === rule);
      const of = (value: (row: QualityRow) => number) => mean(own.map(value));
      const limit = klAt(
        oracle,
        of(({density}) => density),
      );
      const loss = of(({lossDifference}) => lossDifference);
      return [
        rule,
        of(({density}) => density).toFixed(3),
        of(({kl}) => kl).toFixed(5),
        limit === undefined ? '' : (of(({kl}) => kl) / limit).toFixed(2),
        of(({klMedian}) => klMedian).toFixed(5),
        of(({top1}) => top1).toFixed(3),
        `${loss < 0 ? '−' : '+'}${Math.abs(loss).toFixed(4)}`,
        of(({keptMass}) => keptMass).toFixed(4),
        of(({keptMassWorst}) => keptMassWorst).toFixed(3),
        own.map(({text, kl}) => `${text} ${kl.toFixed(4)}`).join(', '),
      ];
    }),
  );
}

/** KL of a front at a density, linear between logarithms, on the nearest piece where it lies outside; undefined for fewer than two points. */
export function klAt(front: ReadonlyArray<Pick<SummaryRow, 'density' | 'kl'>>, density: number): number | undefined {
  const points = front
    .map((row) => ({x: Math.log(row.density!), y: Math.log(row.kl!)}))
    .filter(({x, y}) => Number.isFinite(x) && Number.isFinite(y))
    .sort((a, b) => a.x - b.x);
  if (points.length < 2) return undefined;
  const x = Math.log(density);
  const after = points.findIndex((point, i) => i > 0 && (point.x >= x || i === points.length - 1));
  const [a, b] = [points[after - 1], points[after]];
  return b.x === a.x ? Math.exp(a.y) : Math.exp(a.y + ((x - a.x) / (b.x - a.x)) * (b.y - a.y));
}

function timeTable(rows: readonly TimeRow[]): string {
  const stages = STAGES.filter((stage) => rows.some((row) => row.stages[stage] !== undefined));
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
  return table(
    ['rule', 'precision', 'exact ms', 'ms', 'of exact', 'before attention', ...stages],
    unique(rows.map(({rule, precision}) => `${rule} ${precision}`)).map((name) => {
      const own = rows.filter(({rule, precision}) => `${rule} ${precision}` === name);
      const of = (value: (row: TimeRow) => number) => mean(own.map(value));
      return [
        own[0].rule,
        own[0].precision,
        short(of(({exact}) => exact)),
        short(of(({total}) => total)),
        percent(of(timeShare)),
        percent(of(selectionShare)),
        ...stages.map((stage) => percent(of((row) => (row.stages[stage] ?? 0) / row.exact))),
      ];
    }),
  );
}

function firstTokenTable(rows: RealRun['firstToken']): string {
  return table(
    ['attention', 'precision', 'ms to the first token', 'quartiles', 'speed-up'],
    rows.map(({rule, precision, median, low, high}) => {
      const exact = rows.find((row) => row.rule === EXACT && row.precision === precision);
      const speedUp = rule === EXACT || !exact ? '' : `${(exact.median / median).toFixed(2)}×`;
      return [rule, precision, short(median), `${short(low)}–${short(high)}`, speedUp];
    }),
  );
}

function taskTable(rows: readonly TaskRow[]): string {
  return table(
    ['task', 'rule', 'density', ...PLACEMENTS],
    rows.map(({task, rule, density, answers}) => [
      task,
      rule,
      density.toFixed(3),
      ...PLACEMENTS.map((at) => `${answers[at].correct}/${answers[at].asked}`),
    ]),
  );
}

const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];

function noted(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`${title}:`, lines.map((line) => `- ${line}`).join('\n')];
}
