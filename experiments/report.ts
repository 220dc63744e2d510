import {short, table} from '../bench/table';
import {ANSWERED, answers, costsOf, paretoFront} from './pareto';
import type {Run, SweepRow} from './results';
import type {Estimate} from './statistics';

const TITLES: Record<string, string> = {
  sanity: 'Sanity',
  threshold: 'Threshold',
};

/** The tables of one sub-command, in Markdown. */
export function report(run: Run): string {
  const sections = [
    `# ${TITLES[run.experiment] ?? run.experiment}`,
    `Written by \`${run.command}\`, ${run.date.slice(0, 10)}: ${run.host} on ${run.adapter}.`,
    ...(run.sweep ? [SWEEP_TEXT, ...byLength(run.sweep)] : []),
    ...(run.sanity ? [sanityTable(run.sanity)] : []),
    ...list('Left out', run.skipped),
    ...list('Errors of the device: the results beside them are worth nothing', run.errors),
  ];
  return `${sections.join('\n\n')}\n`;
}

const SWEEP_TEXT =
  'Density: kept of the visible blocks, own segment included in both. Loss: nats a token on the same prompts, answers left ' +
  'out, and what it is above exact attention. Needle: questions answered, with the 95% interval. Time: milliseconds on the ' +
  'GPU for a layer of four heads, mean of an early and a late layer; before attention, as a share of exact attention.';

function byLength(rows: readonly SweepRow[]): string[] {
  return [...new Set(rows.map(({length}) => length))].flatMap((length) => [
    `## ${length.toLocaleString('en')} tokens`,
    thresholdTable(rows.filter((row) => row.length === length)),
  ]);
}

function sweepTable(rows: SweepRow[]): string {
  const tasks = [...new Set(rows.flatMap(({needle}) => Object.keys(needle)))];
  const extras = ['threshold'].filter((name) => rows.some(({settings}) => typeof settings[name] === 'number'));
  const timed = rows.some(({time}) => time !== undefined);
  const head = [
    'variant',
    ...extras,
    ...['density', 'loss', 'above exact'],
    ...tasks,
    ...(timed ? ['exact ms', 'ms', 'speed-up', 'before attention'] : []),
  ];
  return table(
    head,
    rows.map(({variant, settings, density, loss, lossDifference, needle, time}) => [
      variant,
      ...extras.map((name) => (typeof settings[name] === 'number' ? settings[name].toFixed(3) : '')),
      density.toFixed(3),
      loss.toFixed(4),
      variant === 'exact' ? '' : signed(lossDifference),
      ...tasks.map((task) => {
        const result = needle[task as keyof typeof needle];
        return result ? `${result.correct}/${result.asked} (${interval(result.share)})` : '';
      }),
      ...(!timed
        ? []
        : time === undefined
          ? ['', '', '', '']
          : [
              short(time.exact),
              short(time.sparse),
              `${(time.exact / time.sparse).toFixed(2)}×`,
              `${((100 * time.overhead) / time.exact).toFixed(1)}%`,
            ]),
    ]),
  );
}

/** Rules and thresholds trade work for loss, so the table ends with those that are worth choosing. */
function thresholdTable(rows: SweepRow[]): string {
  const sparse = rows.filter(({variant}) => variant !== 'exact');
  const work = sparse.some(({time}) => time !== undefined) ? 'time' : 'density';
  const front = (of: readonly SweepRow[]) =>
    paretoFront(of, costsOf)
      .map(({variant}) => variant)
      .join('; ') || 'none';
  return [
    sweepTable(rows),
    `Pareto front of ${work} and loss: ${front(sparse)}.`,
    `The same among those that answer ${100 * ANSWERED}% of what exact attention answers, in each task: ${front(sparse.filter((row) => answers(row, rows)))}.`,
  ].join('\n\n');
}

function sanityTable(rows: NonNullable<Run['sanity']>): string {
  return table(
    ['tokens', 'check', 'relative L1 error of the output, worst layer', 'loss above exact, nats'],
    rows.map(({length, check, outputDifference, lossDifference}) => [
      String(length),
      check,
      outputDifference.toExponential(1),
      lossDifference.toExponential(1),
    ]),
  );
}

function signed({value, low, high}: Estimate): string {
  const range = Number.isFinite(low) ? ` (${low.toFixed(4)} to ${high.toFixed(4)})` : '';
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(4)}${range}`;
}

const interval = ({low, high}: Estimate) => `${low.toFixed(2)}–${high.toFixed(2)}`;

function list(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`${title}:`, lines.map((line) => `- ${line}`).join('\n')];
}
