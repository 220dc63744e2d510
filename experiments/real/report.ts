import {short, table} from '../../bench/table';
import {STAGES} from '../../bench/results';
import {mean} from '../statistics';
import type {QualityRow, RealRun, TaskRow, TimeRow, TunedRow, TunerRow} from './results';
import {EXACT} from './results';
import {PLACEMENTS} from './ruler';
import {withoutThreshold} from './rules';
import {type SummaryRow, selectionShare, summarise, timeShare} from './summary';

/** The tables of one model, in Markdown. */
export function realReport(run: RealRun): string {
  const {quality, time, firstToken, tasks, tuned, tuner} = run;
  const rows = [quality, time, firstToken, tasks, tuned, tuner].flat();
  const lengths = unique(rows.map(({length}) => length)).sort((a, b) => a - b);
  const sections = [
    `# ${run.model}${run.matrixUnits ? '' : ', without matrix units'}`,
    `${run.date.slice(0, 10)}: ${run.host} on ${run.adapter}. Written by`,
    `\`\`\`sh\n${run.commands.join('\n')}\n\`\`\``,
    TEXT,
    ...(tuned.length > 0 ? [TUNER_TEXT] : []),
    ...lengths.flatMap((length) => {
      const at = <Row extends {length: number}>(rows: readonly Row[]) => rows.filter((row) => row.length === length);
      return [
        `## ${length.toLocaleString('en')} tokens`,
        ...(at(quality).length > 0 ? [qualityTable(at(quality), summarise(run))] : []),
        ...(at(time).length > 0 ? [timeTable(at(time))] : []),
        ...(at(firstToken).length > 0 ? [firstTokenTable(at(firstToken))] : []),
        ...(at(tasks).length > 0 ? [taskTable(at(tasks))] : []),
        ...tunedTables(at(tuned)),
        ...tunerTables(at(tuner)),
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

const TUNER_TEXT =
  'tuned@E: what tunePBSAttention chooses for each layer on one text, so that the relative L1 error of the layers there is, in the mean, at ' +
  'most E less a margin of a fifth. × fixed front: KL over that of the default rule at the same density, between its thresholds. Where ' +
  'blocks are not expected to pay, a layer has exact attention, a density of 1, which the fixed rules never have.';

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

/** What the tuner chose: a table for each text that it saw. */
function tunedTables(rows: readonly TunedRow[]): string[] {
  return unique(rows.map(({text}) => text)).flatMap((text) => [
    `Tuned on ${text}, density there, and the threshold of each layer (1: exact attention):`,
    table(
      ['rule', 'density', 'thresholds'],
      rows
        .filter((row) => row.text === text)
        .sort((a, b) => a.density - b.density)
        .map(({allowed, density, layers}) => [
          `tuned@${allowed}`,
          density.toFixed(3),
          layers.map(({options}) => Number(options.threshold!.toFixed(3))).join(' '),
        ]),
    ),
  ]);
}

/** The choices on texts that the tuner did not see, beside fixed rules: a table for each, and one of their means. */
function tunerTables(rows: readonly TunerRow[]): string[] {
  const tuning = ({tunedText, tunedLength}: TunerRow) =>
    `Tuned on ${tunedText} at ${tunedLength.toLocaleString('en')} tokens`;
  return unique(rows.map(tuning)).flatMap((name) => {
    const own = rows.filter((row) => tuning(row) === name);
    const texts = unique(own.map(({text}) => text));
    return [
      ...texts.flatMap((text) => [`${name}, ${text}:`, tunerTable(own.filter((row) => row.text === text))]),
      ...(texts.length > 1 ? [`${name}, means over texts:`, tunerTable(meansOver(texts, own))] : []),
    ];
  });
}

type TunerPoint = Pick<TunerRow, 'rule' | 'density' | 'kl' | 'top1'>;

/** Of the rules that every text was read by. */
function meansOver(texts: readonly string[], rows: readonly TunerRow[]): TunerPoint[] {
  return unique(rows.map(({rule}) => rule)).flatMap((rule) => {
    const own = rows.filter((row) => row.rule === rule);
    const of = (value: (row: TunerRow) => number) => mean(own.map(value));
    const point = {rule, density: of(({density}) => density), kl: of(({kl}) => kl), top1: of(({top1}) => top1)};
    return own.length === texts.length ? [point] : [];
  });
}

function tunerTable(points: readonly TunerPoint[]): string {
  const isTuned = ({rule}: TunerPoint) => withoutThreshold(rule) === 'tuned';
  const fixed = points.filter((point) => !isTuned(point));
  const byDensity = [...points].sort((a, b) => Number(isTuned(a)) - Number(isTuned(b)) || a.density - b.density);
  return table(
    ['rule', 'density', 'KL', 'same token', '× fixed front'],
    byDensity.map((point) => {
      const limit = isTuned(point) ? klAt(fixed, point.density) : undefined;
      return [
        point.rule,
        point.density.toFixed(3),
        point.kl.toFixed(5),
        point.top1.toFixed(3),
        limit === undefined ? '' : (point.kl / limit).toFixed(2),
      ];
    }),
  );
}

const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];

function noted(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`${title}:`, lines.map((line) => `- ${line}`).join('\n')];
}
