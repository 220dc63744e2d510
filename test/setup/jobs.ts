import {spawn} from 'node:child_process';
import {availableParallelism} from 'node:os';

export interface Counts {
  passed: number;
  failed: number;
}

/**
 * Runs jobs as processes of their own, as many at a time as there are cores and in the order in which they are given. What a job prints
 * comes when it is over, in one piece.
 *
 * @param commands arguments of Node for each job by its name; the process sends its `Counts`. One that sends none counts as one failed test.
 */
export async function runJobs(commands: Record<string, string[]>): Promise<Counts> {
  const waiting = Object.entries(commands);
  const count = waiting.length;
  const total: Counts = {passed: 0, failed: 0};
  let begun = 0;
  let over = 0;
  async function runNext(): Promise<void> {
    const next = waiting.shift();
    if (!next) return;
    const [name, command] = next;
    console.log(`${++begun} of ${count} begins: ${name}`);
    const start = performance.now();
    const {counts, output} = await runProcess(command);
    const seconds = Math.round((performance.now() - start) / 1000);
    console.log(`\n${output.trimEnd()}`);
    console.log(`[${++over}/${count}] ${name}: ${counts.passed} passed, ${counts.failed} failed, ${seconds} s`);
    total.passed += counts.passed;
    total.failed += counts.failed;
    await runNext();
  }
  await Promise.all(Array.from({length: availableParallelism()}, runNext));
  return total;
}

function runProcess(command: string[]): Promise<{counts: Counts; output: string}> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, command, {stdio: ['ignore', 'pipe', 'pipe', 'ipc']});
    let counts: Counts = {passed: 0, failed: 1};
    let output = '';
    const take = (text: string) => (output += text);
    child.stdout!.setEncoding('utf8').on('data', take);
    child.stderr!.setEncoding('utf8').on('data', take);
    child.on('message', (message: Counts) => (counts = message));
    child.once('error', reject).once('close', (code) => {
      // Something may end it after it has counted its tests.
      const brokeOff = code !== 0 && counts.failed === 0;
      resolve({counts: brokeOff ? {...counts, failed: 1} : counts, output});
    });
  });
}
