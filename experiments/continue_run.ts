import type {Options} from './options';
import type {Run} from './results';

/**
 * A run that starts with the rows of an earlier one, so that a sweep longer than a machine is lent can be made in parts. Rows
 * are compared with each other, so both must ask the same questions on the same device, with the same sizes.
 *
 * @param run the new run, without rows.
 * @param earlier what the file of the earlier run says.
 * @throws Error where the two do not go together.
 */
export function continueRun(run: Run, earlier: Run, {tasks}: Options): Run {
  const rows = earlier.sweep ?? [];
  if (rows.length === 0)
    throw new Error('--continue: the earlier run has no rows of a sweep; accepted: a sweep cut short');
  const refuse = (what: string, got: unknown, before: unknown) => {
    if (got !== before) throw new Error(`--continue: ${what} ${got}; accepted: ${before}, as in the earlier run`);
  };
  refuse('experiment', run.experiment, earlier.experiment);
  refuse('questions', run.questions, earlier.questions);
  refuse('tasks', String(tasks), Object.keys(rows[0].needle).join());
  refuse('sizes', JSON.stringify(run.sizes), JSON.stringify(earlier.sizes));
  const wasTimed = earlier.timed ?? rows.some(({time}) => time !== undefined);
  refuse('timing', run.timed ? 'on' : 'off', wasTimed ? 'on' : 'off');
  refuse('adapter', run.adapter, earlier.adapter);
  refuse('host', run.host, earlier.host);
  if (earlier.errors.length > 0)
    throw new Error(`--continue: the device failed in the earlier run: ${earlier.errors[0]}`);
  return {...run, sweep: rows};
}
