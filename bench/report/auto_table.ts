import {type AutoResult, type Basis, BASES} from '../results';
import {milliseconds, table} from '../table';

const NAMES = Object.keys(BASES) as Basis[];

/** Which way `auto` takes, and what is lost where the other is faster. */
export function autoTable(results: readonly AutoResult[]): string[] {
  if (results.length === 0) return [];
  const head = ['heads', 'tokens', 'precision', 'density', 'exact', 'PBS-Attn', ...NAMES.map((name) => BASES[name])];
  const rows = results.map((result) => [
    ...[result.shape, result.length.toLocaleString('en'), result.precision, result.density.toFixed(3)],
    ...[milliseconds(result.exact), milliseconds(result.sparse)],
    ...NAMES.map((name) => {
      const loss = lossOf(result, name);
      return loss < 0.005 ? result.choices[name] : `${result.choices[name]}, +${percent(loss)}`;
    }),
  ]);
  const largest = NAMES.map((name) => {
    const losses = results.map((result) => lossOf(result, name));
    return `${BASES[name]} ${percent(Math.max(...losses))}`;
  });
  return [
    'Synthetic data (`bench/synthetic_attention.ts`), time a call. What `auto` takes, and how much longer that is than the faster way.',
    table(head, rows),
    `Largest loss: ${largest.join('; ')}.`,
  ];
}

/** How much longer the choice takes than the faster way, as a share of that. */
export function lossOf({exact, sparse, choices}: AutoResult, basis: Basis): number {
  const taken = choices[basis] === 'exact' ? exact : sparse;
  return taken.median / Math.min(exact.median, sparse.median) - 1;
}

const percent = (share: number) => `${(100 * share).toFixed(0)}%`;
