import type {BackendName} from '../options';
import type {Result, Run} from '../results';
import {autoTable} from './auto_table';
import {CLOCK_TEXTS} from './clock_texts';
import {exactTables} from './exact_tables';
import {formsTable} from './forms_table';
import {sparseTables} from './sparse_tables';
import {agreementTable, decodeTable, gradientTable, memoryTables} from './tables';

/** The backend of the runs. Runs of two backends would stand in the same rows, so they make no report. */
export function backendOf(runs: ReadonlyArray<Pick<Run, 'backend'>>): BackendName {
  // Runs from before WebGL was measured do not say.
  const backends = new Set(runs.map(({backend}) => backend ?? 'webgpu'));
  if (backends.size > 1) {
    throw new Error(`the runs are of ${[...backends].join(' and ')}; a report shows those of one backend`);
  }
  return [...backends][0] ?? 'webgpu';
}

type Kind = Result['kind'];
type ResultOf<K extends Kind> = Extract<Result, {kind: K}>;

/** In the order of the report. */
const SECTIONS: {
  [K in Kind]: [heading: string, tables: (results: Array<ResultOf<K>>, backend: BackendName) => string[]];
} = {
  exact: ['Exact attention, causal', exactTables],
  form: ['Forms of attention', formsTable],
  sparse: ['PBS-Attn against our exact attention', sparseTables],
  auto: ['The choice of `auto`', autoTable],
  decode: ['Decoding', decodeTable],
  gradient: ['With gradients', gradientTable],
  memory: ['Bytes on the GPU', memoryTables],
  agreement: ['Agreement', agreementTable],
};

/**
 * The report of one or several runs of a backend, in Markdown.
 *
 * @param earlier a report whose sections stay where the runs have none of their own. A section is replaced as a whole: rows of two
 *     runs, of other clocks or another device, do not belong into one table.
 */
export function report(runs: readonly Run[], earlier = ''): string {
  const backend = backendOf(runs);
  const results = latest(runs);
  const sections = new Map(
    earlier
      .split(/^## /m)
      .slice(1)
      .map((section) => [section.split('\n')[0], section.trim()]),
  );
  for (const kind of Object.keys(SECTIONS) as Kind[]) {
    const own = results.filter((result) => result.kind === kind);
    if (own.length === 0) continue;
    const [heading, tables] = SECTIONS[kind] as [string, (results: Result[], backend: BackendName) => string[]];
    const measured = runs.filter((run) => own.some((result) => run.results.includes(result))).map(describeRun);
    sections.set(heading, [heading, measured.join('\n'), ...tables(own, backend)].join('\n\n'));
  }
  const order = Object.values(SECTIONS).map(([heading]) => heading);
  const text = [...sections]
    .sort(([a], [b]) => order.indexOf(a) - order.indexOf(b))
    .map(([, section]) => `## ${section}`);
  return `${[
    `# ${CLOCK_TEXTS[backend].title}`,
    'Written by `npm run bench` (folder `bench/`), which says with `--help` what it can run. Times are milliseconds a ' +
      'call: the median, and the quartiles in brackets. Compare within one run: absolute figures move with device, ' +
      'driver and clocks. A section is of the runs that it names.',
    ...text,
  ].join('\n\n')}\n`;
}

/** Where two runs hold the same case, the later one counts. */
export function latest(runs: readonly Run[]): Result[] {
  const byCase = new Map<string, Result>();
  for (const {results} of [...runs].sort((a, b) => a.date.localeCompare(b.date))) {
    for (const result of results) {
      const {kind, shape, length} = result;
      const rest =
        result.kind === 'sparse'
          ? [result.data, result.layer, result.precision, result.threshold]
          : result.kind === 'auto'
            ? [result.precision, result.threshold]
            : result.kind === 'decode'
              ? [result.rows]
              : result.kind === 'gradient'
                ? [result.data]
                : result.kind === 'form'
                  ? [result.method, result.form]
                  : 'method' in result
                    ? [result.method]
                    : [];
      byCase.set([kind, shape, length, ...rest].join(' '), result);
    }
  }
  return [...byCase.values()];
}

function describeRun(run: Run): string {
  const versions = Object.entries(run.versions).map(([name, version]) => `${name} ${version}`);
  const traits = run.limits
    ? Object.entries(run.limits)
        .map(([name, value]) => `${name} ${value.toLocaleString('en')}`)
        .join(', ')
    : `device features in use: ${run.features.join(', ') || 'none'}`;
  const lines = [
    `- ${run.date.slice(0, 16).replace('T', ' ')} UTC: \`${run.command}\``,
    `${run.host}; ${versions.join(', ')}`,
    run.adapter,
    traits,
  ];
  if (run.skipped.length > 0) lines.push(`not run: ${run.skipped.join('; ')}`);
  if (run.errors.length > 0) lines.push(`**the device reported errors**: ${run.errors.join('; ')}`);
  return lines.join('\n  - ');
}
