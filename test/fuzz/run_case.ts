import {Broken, type FuzzTarget} from './fuzz_target';

/** What one case may take, of a core: the machine may be busy. */
export const CASE_MS = 2000;
const CASE_BYTES = 200_000_000;
const MESSAGE_CHARACTERS = 2000;

/**
 * Runs a case against the budgets.
 *
 * @returns what was wrong, or nothing.
 */
export async function runCase(target: FuzzTarget, input: Uint8Array): Promise<string | undefined> {
  const memory = memoryInUse();
  const start = process.cpuUsage();
  let fault: string | undefined;
  try {
    await target.run(input);
  } catch (error) {
    fault = faultOf(error);
  }
  const {user, system} = process.cpuUsage(start);
  const ms = (user + system) / 1000;
  const bytes = memoryInUse() - memory;
  if (ms > CASE_MS) return `took ${Math.round(ms)} ms; accepted: ${CASE_MS}`;
  if (bytes > CASE_BYTES) return `took ${bytes} bytes; accepted: ${CASE_BYTES}`;
  return fault;
}

function memoryInUse(): number {
  const {heapUsed, external} = process.memoryUsage();
  return heapUsed + external;
}

/** Refusals are errors with a message of ours; anything else comes from inside. */
function faultOf(error: unknown): string | undefined {
  if (error instanceof Broken) return error.message;
  if (!(error instanceof Error)) return `threw ${typeof error}`;
  const {name, message, stack} = error;
  const isOurs = error.constructor === Error || name === 'Failure' || error.constructor.name === 'Failure';
  if (!isOurs)
    return `${error.constructor.name}: ${message.slice(0, 300)}\n${(stack ?? '').split('\n').slice(1, 5).join('\n')}`;
  if (message === '') return 'an error without a message';
  if (message.length > MESSAGE_CHARACTERS) return `a message of ${message.length} characters: ${message.slice(0, 100)}`;
  return undefined;
}
