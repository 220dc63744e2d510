import type {Inputs} from '../../bench/captured_attention';
import type {Timer} from '../../bench/device';
import {stageOf} from '../../bench/stages';
import type {AttentionTime} from '../results';
import {mean} from '../statistics';
import {exactVariant, type Variant} from './variant';

/** Time of a variant's attention on captured layers, beside exact attention on the same; undefined without timestamps. */
export async function timeAttention(
  timer: Timer,
  variant: Variant,
  captured: readonly Inputs[],
  seconds: number,
): Promise<AttentionTime | undefined> {
  const times: AttentionTime[] = [];
  // Readings of short prompts leave a GPU idle enough that its clocks fall: what is timed first would look slow.
  const [{query, key, value}] = captured;
  await timer.timePrograms(() => variant.attend(query, key, value), seconds);
  for (const {query, key, value} of captured) {
    const exact = await timer.timePrograms(() => exactVariant.attend(query, key, value), seconds);
    const sparse = await timer.timePrograms(() => variant.attend(query, key, value), seconds);
    if (!exact || !sparse) return undefined;
    const total = (programs: typeof exact) => programs.reduce((sum, {gpu}) => sum + gpu.median, 0);
    times.push({
      exact: total(exact),
      sparse: total(sparse),
      overhead: total(sparse.filter(({program}) => stageOf(program) !== 'attend')),
    });
  }
  return {
    exact: mean(times.map(({exact}) => exact)),
    sparse: mean(times.map(({sparse}) => sparse)),
    overhead: mean(times.map(({overhead}) => overhead)),
  };
}
