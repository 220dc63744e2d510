import {
  type AgreementResult,
  type DecodeResult,
  type ExactResult,
  type GradientResult,
  type MemoryResult,
  METHODS,
  type Method,
  type Result,
  type Run,
} from './results';
import {autoTable} from './auto_report';
import {CLOCK_TEXTS} from './clock_texts';
import type {BackendName} from './options';
import {sparseTables} from './sparse_report';
import type {Timing} from './statistics';
import {type Cell, milliseconds, table} from './table';

/** The backend of the runs. Runs of two backends would stand in the same rows, so they make no report. */
export function backendOf(runs: ReadonlyArray<Pick<Run, 'backend'>>): BackendName {
  // Runs from before WebGL was measured do not say.
  const backends = new Set(runs.map(({backend}) => backend ?? 'webgpu'));
  if (backends.size > 1) {
    throw new Error(`the runs are of ${[...backends].join(' and ')}; a report shows those of one backend`);
  }
  return [...backends][0] ?? 'webgpu';
}

/** The report of one or several runs of a backend, in Markdown. */
export function report(runs: readonly Run[]): string {
  const results = latest(runs);
  const backend = backendOf(runs);
  const sections = [
    `# ${CLOCK_TEXTS[backend].title}`,
    'Written by `npm run bench` (folder `bench/`), which says with `--help` what it can run. Times are milliseconds a ' +
      'call: the median, and the quartiles in brackets. Compare within one run: absolute figures move with device, ' +
      'driver and clocks.',
    ...runs.map(describeRun),
    ...exactTables(
      results.filter((result) => result.kind === 'exact'),
      backend,
    ),
    ...sparseTables(
      results.filter((result) => result.kind === 'sparse'),
      backend,
    ),
    ...autoTable(results.filter((result) => result.kind === 'auto')),
    ...decodeTable(
      results.filter((result) => result.kind === 'decode'),
      backend,
    ),
    ...gradientTable(results.filter((result) => result.kind === 'gradient')),
    ...memoryTables(results.filter((result) => result.kind === 'memory')),
    ...agreementTable(results.filter((result) => result.kind === 'agreement')),
  ];
  return `${sections.join('\n\n')}\n`;
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
                : 'method' in result
                  ? [result.method]
                  : [];
      byCase.set([kind, shape, length, ...rest].join(' '), result);
    }
  }
  return [...byCase.values()];
}

function describeRun(run: Run, index: number): string {
  const versions = Object.entries(run.versions).map(([name, version]) => `${name} ${version}`);
  const lines = [
    `**Run ${index + 1}**, ${run.date.slice(0, 16).replace('T', ' ')} UTC: \`${run.command}\``,
    '',
    `- ${run.host}; ${versions.join(', ')}`,
    `- ${run.adapter}`,
    run.limits
      ? `- ${Object.entries(run.limits)
          .map(([name, value]) => `${name} ${value.toLocaleString('en')}`)
          .join(', ')}`
      : `- device features in use: ${run.features.join(', ') || 'none'}`,
  ];
  if (run.skipped.length > 0) lines.push(`- not run: ${run.skipped.join('; ')}`);
  if (run.errors.length > 0) lines.push(`- **the device reported errors**: ${run.errors.join('; ')}`);
  return lines.join('\n');
}

const order = (x: string) =>
  x
    .split(/[x/]/)
    .map((part) => part.padStart(4, '0'))
    .join();

function exactTables(results: ExactResult[], backend: BackendName): string[] {
  if (results.length === 0) return [];
  const shapes = [...new Set(results.map(({shape}) => shape))].sort((a, b) => order(a).localeCompare(order(b)));
  const {exact, column} = CLOCK_TEXTS[backend];
  return ['## Exact attention, causal', exact, ...shapes.map((shape) => exactTable(shape, results, column))];
}

function exactTable(shape: string, all: ExactResult[], gpuColumn: string): string {
  const results = all.filter((result) => result.shape === shape);
  const methods = (Object.keys(METHODS) as Method[]).filter((method) => results.some((r) => r.method === method));
  const lengths = [...new Set(results.map(({length}) => length))].sort((a, b) => a - b);
  const at = (length: number, method: Method) => results.find((r) => r.length === length && r.method === method);
  const bases = (method: Method) => ratioBases(method).filter((base) => methods.includes(base));
  const head = [
    'tokens',
    ...methods.flatMap((method) => [
      METHODS[method],
      ...(isOurs(method) ? [gpuColumn] : bases(method).map((base) => `to ${METHODS[base]}`)),
    ]),
  ];
  const notes: string[] = [];
  const cell = (result: ExactResult | undefined): Cell => {
    if (result?.call) return milliseconds(result.call);
    if (!result?.note) return '';
    if (!notes.includes(result.note)) notes.push(result.note);
    return `— (${notes.indexOf(result.note) + 1})`;
  };
  const ratio = (length: number, theirs: Method, ours: Method) => {
    const [a, b] = [at(length, theirs)?.call, at(length, ours)?.call];
    return a && b ? `${(a.median / b.median).toFixed(2)}×` : '';
  };
  const rows = lengths.map((length) => [
    length.toLocaleString('en'),
    ...methods.flatMap((method) => {
      const result = at(length, method);
      const extra = isOurs(method)
        ? [result?.gpu ? milliseconds(result.gpu) : '']
        : bases(method).map((base) => ratio(length, method, base));
      return [cell(result), ...extra];
    }),
  ]);
  const footnotes = notes.map((note, i) => `(${i + 1}) ${note}`);
  return [`### ${shape} (heads × head dim)`, table(head, rows), ...footnotes].join('\n\n');
}

const isOurs = (method: Method) => method.startsWith('ours');

/** What a peer is compared with: ours in the same precision. */
function ratioBases(method: Method): Method[] {
  return method === 'ort-f16' ? ['ours-f16', 'ours-f16-plain'] : ['ours-f32'];
}

function decodeTable(results: DecodeResult[], backend: BackendName): string[] {
  if (results.length === 0) return [];
  const rows = results.map(({shape, length, rows, call, gpu, composed}) => [
    shape,
    length.toLocaleString('en'),
    String(rows),
    milliseconds(call),
    gpu === undefined ? '' : gpu.toPrecision(3),
    composed ? milliseconds(composed) : '',
    composed ? `${(composed.median / call.median).toFixed(2)}×` : '',
  ]);
  return [
    '## Decoding',
    'Exact attention of the last query rows over a cache. Calls this short are mostly recording, on the processor' +
      (backend === 'webgl' ? '; waiting for each draw takes longer than the call.' : '.'),
    table(
      ['heads', 'keys', 'rows', 'ours, float32', CLOCK_TEXTS[backend].column, 'tfjs composed, float32', 'to ours'],
      rows,
    ),
  ];
}

function gradientTable(results: GradientResult[]): string[] {
  if (results.length === 0) return [];
  const ratio = (a: Timing | undefined, b: Timing | undefined) =>
    a && b ? `${(a.median / b.median).toFixed(2)}×` : '';
  const rows = results.map(({data, layer, shape, length, exact, sparse, composed}) => [
    layer === undefined ? data : `${data}, layer ${layer}`,
    shape,
    length.toLocaleString('en'),
    milliseconds(exact),
    composed ? milliseconds(composed) : '',
    ratio(composed, exact),
    sparse ? milliseconds(sparse) : '',
    ratio(exact, sparse),
  ]);
  return [
    '## With gradients',
    'Causal attention and its gradients by query, key and value, float32.',
    table(['data', 'heads', 'tokens', 'exact', 'tfjs composed', 'to exact', 'sparse', 'exact to sparse'], rows),
  ];
}

function memoryTables(results: MemoryResult[]): string[] {
  if (results.length === 0) return [];
  const mebibytes = (bytes: number | undefined) => (bytes === undefined ? '' : (bytes / 2 ** 20).toFixed(1));
  const about =
    'MiB held at one time beyond the inputs, the output (which every way needs) included, counted where tfjs hands out ' +
    'buffers. Where the composed way did not run, one score matrix shows what it would need at least.';
  const head = ['heads', 'tokens', 'output', 'exact', 'PBS-Attn', 'tfjs composed', 'one score matrix'];
  const rows = results.map((result) => [
    result.shape,
    result.length.toLocaleString('en'),
    ...[result.output, result.exact, result.sparse, result.composed, result.scoreMatrix].map(mebibytes),
  ]);
  return ['## Bytes on the GPU', about, table(head, rows)];
}

/** float16 is within 1e-3 of float32; what is beyond this is another function. */
const WRONG = 1e-2;

function agreementTable(results: AgreementResult[]): string[] {
  if (results.length === 0) return [];
  const rows = results.map(({method, shape, length, difference, note}) => [
    {
      ...METHODS,
      'ort-cpu-f32': 'the same model on ONNX Runtime’s CPU provider, float32',
      'ort-cpu-f16': 'the same, float16',
    }[method],
    shape,
    length.toLocaleString('en'),
    difference === undefined ? `— ${note}` : difference.toExponential(1) + (difference > WRONG ? ' **wrong**' : ''),
  ]);
  return [
    '## Agreement',
    'Relative L1 difference of each output to ours in float32: a peer that is far off computes something else.',
    table(['method', 'heads', 'tokens', 'difference'], rows),
  ];
}
