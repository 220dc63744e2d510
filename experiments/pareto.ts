import type {SweepRow} from './results';

/** What a row costs: time as a share of exact attention's (or the share of blocks, untimed), and nats above exact attention. */
export interface Costs {
  work: number;
  loss: number;
}

export function costsOf({density, lossDifference, time}: SweepRow): Costs {
  return {work: time ? time.sparse / time.exact : density, loss: lossDifference.value};
}

/** Share of exact attention's right answers, in each task, that a row must give to be worth choosing. */
export const ANSWERED = 0.95;

/** @param rows the rows of its run, that of exact attention at its length among them. */
export function answers({length, needle}: SweepRow, rows: readonly SweepRow[]): boolean {
  const exact = rows.find((row) => row.length === length && row.variant === 'exact');
  return Object.entries(exact?.needle ?? {}).every(
    ([task, {correct}]) => (needle[task as keyof typeof needle]?.correct ?? 0) >= ANSWERED * correct,
  );
}

/** The rows that no other row beats in one cost without being worse in the other, from the least work to the most. */
export function paretoFront<Row>(rows: readonly Row[], costs: (row: Row) => Costs): Row[] {
  const inOrder = [...rows].sort((a, b) => costs(a).work - costs(b).work || costs(a).loss - costs(b).loss);
  let least = Infinity;
  return inOrder.filter((row) => {
    const {loss} = costs(row);
    const isFront = loss < least;
    if (isFront) least = loss;
    return isFront;
  });
}
