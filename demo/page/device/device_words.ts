import {METHODS, type DeviceResult, type MeasuredLength, type Method} from '../../engine/device_protocol';
import {BACKEND_TITLES, formatCount, formatDuration, formatPercent, formatTokens} from '../format';
import type {Series} from '../timings';

const TITLES: Record<Method, string> = {
  exact: 'Exact',
  sparse: 'Sparse (PBS)',
  composed: 'TensorFlow.js’s own',
  exact16: 'Exact, float16',
  sparse16: 'Sparse (PBS), float16',
};

const LINES: Record<Method, Series['attention']> = {
  exact: 'exact',
  sparse: 'pbs',
  composed: 'composed',
  exact16: 'exact',
  sparse16: 'pbs',
};

/** The lines of the chart. */
export function linesOf({lengths}: DeviceResult): Series[] {
  return methodsOf(lengths).map((method) => ({
    attention: LINES[method],
    label: TITLES[method],
    points: lengths.flatMap(({length, ms}) => {
      const time = ms[method];
      return time === undefined ? [] : [{length, ms: time}];
    }),
  }));
}

/** Head and rows of the table. */
export function tableOf({lengths}: DeviceResult): {head: string[]; rows: string[][]} {
  const methods = methodsOf(lengths);
  return {
    head: ['Tokens', ...methods.map((method) => TITLES[method]), 'Blocks kept', 'Automatic takes'],
    rows: lengths.map(({length, ms, density, auto}) => [
      formatCount(length),
      ...methods.map((method) => {
        const time = ms[method];
        return time === undefined ? '–' : formatDuration(time);
      }),
      formatPercent(density),
      auto === 'exact' ? TITLES.exact : TITLES.sparse,
    ]),
  };
}

export function describeDevice({backend, adapter, heads, headDim, threshold, date}: DeviceResult): string {
  return (
    `${BACKEND_TITLES[backend]}, ${adapter}. ${heads} heads of ${headDim}, causal, τ ${threshold}; ` +
    `a call, median; ${date.slice(0, 10)}.`
  );
}

export function describeFeatures({features}: DeviceResult): string {
  return features.length === 0 ? '' : `Features: ${features.join(', ')}.`;
}

/** The longest length in one sentence. */
export function describeLongest({lengths}: DeviceResult): string {
  const last = lengths.at(-1);
  const {exact, sparse} = last?.ms ?? {};
  if (last === undefined || exact === undefined || sparse === undefined) return '';
  const times = `${formatDuration(sparse)} and ${formatDuration(exact)}`;
  const ratio = exact / sparse;
  const how =
    ratio >= 1 ? `${ratio.toFixed(2)} times as fast as exact` : `${(1 / ratio).toFixed(2)} times as long as exact`;
  return `At ${formatTokens(last.length)} sparse attention is ${ratio >= 1 ? how : `slower: ${how}`} (${times}).`;
}

/** For a text, with its table. */
export function markdownOf(result: DeviceResult): string {
  const {head, rows} = tableOf(result);
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [
    describeDevice(result),
    describeFeatures(result),
    [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n'),
  ]
    .filter((part) => part !== '')
    .join('\n\n');
}

function methodsOf(lengths: readonly MeasuredLength[]): Method[] {
  return METHODS.filter((method) => lengths.some(({ms}) => ms[method] !== undefined));
}
