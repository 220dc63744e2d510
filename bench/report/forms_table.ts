import {type Form, type FormResult, METHODS} from '../results';
import {type Cell, milliseconds, table} from '../table';

/** The most that a form should take, as a share of attention without it. */
function aimOf({form, method}: FormResult): number | undefined {
  if (!method.startsWith('ours')) return undefined;
  const aims: Record<Form, number> = {
    sinks: 1.03,
    alibiSlopes: 1.05,
    softCap: method === 'ours-f32' ? 1.1 : 1.25,
    window: 1.15 * VISIBLE,
  };
  return aims[form];
}

/** Of all pairs that a causal mask shows, those in a window of an eighth of the tokens. */
const VISIBLE = 1 - (7 / 8) ** 2;

export function formsTable(results: readonly FormResult[]): string[] {
  const notes: string[] = [];
  const noted = (note = ''): Cell => {
    if (!notes.includes(note)) notes.push(note);
    return `— (${notes.indexOf(note) + 1})`;
  };
  const rows = results.map((result) => {
    const {shape, length, method, form, call, plain, note} = result;
    const [ratio, aim] = [ratioOf(result), aimOf(result)];
    const over = ratio !== undefined && aim !== undefined && ratio > aim;
    return [
      ...[shape, length.toLocaleString('en'), METHODS[method], form],
      call ? milliseconds(call) : noted(note),
      plain ? milliseconds(plain) : noted(note),
      ratio === undefined ? '' : ratio.toFixed(3),
      aim === undefined ? '' : `${aim.toFixed(3)}${over ? ' **over**' : ''}`,
    ];
  });
  return [
    'Random inputs, batch 1, exact and causal; our forms in turns with attention that has none. The window is an eighth of the tokens: ' +
      `${(100 * VISIBLE).toFixed(1)}% of the pairs. ONNX Runtime: \`GroupQueryAttention\` with \`local_window_size\`. The aim is the most that a form should take.`,
    table(['heads', 'tokens', 'method', 'form', 'time', 'without', 'to without', 'aim'], rows),
    ...notes.map((note, i) => `(${i + 1}) ${note}`),
  ];
}

/** Time beside attention without the form. */
export function ratioOf({call, plain}: FormResult): number | undefined {
  return call && plain && call.median / plain.median;
}
