/**
 * Where there is an environment: FORM_CASES random cases a test, or those of FORM_MINUTES for all tests of a suite together, from seed
 * FORM_SEED on, of any combination of forms; else few, of few combinations.
 */
const environment = (globalThis as {process?: {env: Record<string, string | undefined>}}).process?.env ?? {};
const {FORM_CASES, FORM_MINUTES} = environment;
const firstSeed = Number(environment.FORM_SEED ?? (FORM_MINUTES === undefined ? 1 : Date.now() % 2 ** 31));

/** Whether combinations are few. */
export const few = FORM_CASES === undefined && FORM_MINUTES === undefined;

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
  const minutes = FORM_MINUTES === undefined || FORM_CASES !== undefined ? undefined : Number(FORM_MINUTES) / tests;
  const end = performance.now() + 60_000 * (minutes ?? Infinity);
  const cases = minutes === undefined ? Number(FORM_CASES ?? count) : Infinity;
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
