import {expect} from 'chai';

/** With `FAILURES=all` everything is tried; else, in little time, some of it. */
export const all = process.env.FAILURES === 'all';

export const sample = {
  /** Of what can be run, by name. */
  of: <T>(runs: Record<string, T>): Record<string, T> =>
    Object.fromEntries(Object.entries(runs).filter((_, i) => all || i % 3 === 0)),
  /** One of so many is tried. */
  step: all ? 1 : 9,
};

/** How many failures were tried, by kind. */
const tried: Record<string, number> = {};
after(() => Object.entries(tried).forEach(([kind, count]) => console.log(`failures tried: ${count} of ${kind}`)));

/** Breaks one kind of thing on a backend. */
export interface FaultLayer {
  /** What it breaks. */
  kind: string;
  /** From now on the n-th from here fails. */
  arm(nth: number): {hasFired(): boolean};
  disarm(): void;
}

/** What is run, and what must be the same before and after, whatever fails. */
export interface Failing<Values> {
  run: () => Promise<Values>;
  counts: () => number[];
  /** Throws if what a run gave is not right. */
  check: (values: Values) => void;
}

/**
 * As SQLite is tested: the first of its kind fails, then the second, and so on until none is left to fail. Each time there is an error
 * that says something, nothing is left behind, and the next run is right.
 *
 * @returns how many were tried.
 */
export async function failEach<Values>(fault: FaultLayer, failing: Failing<Values>): Promise<number> {
  const {run, counts, check} = failing;
  check(await run());
  const before = counts();
  for (let nth = 1, count = 0; ; nth += sample.step, ++count) {
    const armed = fault.arm(nth);
    let outcome: Values | Error;
    try {
      outcome = await run().catch((error: Error) => error);
    } finally {
      fault.disarm();
    }
    if (!armed.hasFired()) {
      expect(outcome).not.to.be.instanceOf(Error);
      tried[fault.kind] = (tried[fault.kind] ?? 0) + count;
      return count;
    }
    expect(outcome, `number ${nth} fails and nobody notices`).to.be.instanceOf(Error);
    expect((outcome as Error).message, `number ${nth}`).to.match(/\w+: .{10}/);
    const left = counts().map((count, i) => Math.max(0, count - before[i]));
    expect(left, `left behind when number ${nth} fails`).to.deep.equal(before.map(() => 0));
    check(await run());
    expect(counts(), `left behind by the run after number ${nth}`).to.deep.equal(before);
  }
}
