/*
 * FORM_CASES random cases a test, or those of FORM_MINUTES for all tests of a suite together, from seed FORM_SEED on, of any combination of
 * forms; without them few, of few combinations.
 */
const givenCases = Number(process.env.FORM_CASES || NaN);
const givenMinutes = Number(process.env.FORM_MINUTES || NaN);
const firstSeed = Number(process.env.FORM_SEED || (givenMinutes ? Date.now() % 2 ** 31 : 1));

/** Whether combinations are few. */
export const few = !givenCases && !givenMinutes;

/**
 * Runs the cases of a test, up to the first that fails.
 *
 * @param count how many, by default.
 * @param tests how many tests share FORM_MINUTES.
 * @param errorOf runs the case of a seed; its relative error.
 */
export async function forRandomCases(
  count: number,
  tests: number,
  errorOf: (seed: number) => Promise<number>,
): Promise<void> {
  const byTime = !givenCases && givenMinutes > 0;
  const end = performance.now() + (byTime ? (60_000 * givenMinutes) / tests : Infinity);
  const cases = byTime ? Infinity : givenCases || count;
  let [ran, largest] = [0, 0];
  try {
    for (; ran < cases && performance.now() < end; ++ran) largest = Math.max(largest, await errorOf(firstSeed + ran));
  } finally {
    if (!few) console.log(`${ran} cases from seed ${firstSeed}, largest relative error ${largest}`);
  }
}

/** How to run the case of a seed again, and what it is. */
export const caseText = (seed: number, {mask, ...form}: {mask?: {shape: number[]}} & Record<string, unknown>): string =>
  `FORM_CASES=1 FORM_SEED=${seed}: ${JSON.stringify({...form, mask: mask?.shape})}`;
