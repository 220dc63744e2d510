import {type ExactResult, METHODS, type Method} from '../results';
import type {BackendName} from '../options';
import {type Cell, milliseconds, table} from '../table';
import {CLOCK_TEXTS} from './clock_texts';

const order = (x: string) =>
  x
    .split(/[x/]/)
    .map((part) => part.padStart(4, '0'))
    .join();

export function exactTables(results: ExactResult[], backend: BackendName): string[] {
  if (results.length === 0) return [];
  const shapes = [...new Set(results.map(({shape}) => shape))].sort((a, b) => order(a).localeCompare(order(b)));
  const {exact, column} = CLOCK_TEXTS[backend];
  return [exact, ...shapes.map((shape) => exactTable(shape, results, column))];
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
