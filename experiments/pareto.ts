import type {SweepRow} from './results';

/** What a row costs: time as a share of exact attention's (or the share of blocks, untimed), and nats above exact attention. */
export interface Costs {
  work: number;
  loss: number;
}

export function costsOf({density, lossDifference, time}: SweepRow): Costs {
  return {work: time ? time.sparse / time.exact : density, loss: lossDifference.value};
}

/** Share of the questions of each task that a row must answer to be worth choosing. */
export const ANSWERED = 0.95;

export const answers = ({needle}: SweepRow) => Object.values(needle).every(({share}) => share.value >= ANSWERED);

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
