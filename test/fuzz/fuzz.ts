import {fork} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Random} from './random';
import {CASE_MS} from './run_case';
import {TARGETS} from './targets';
import type {ChildMessage, Finding, FuzzTask} from './child';

export interface FuzzRequest {
  target: string;
  seed: number;
  milliseconds: number;
  /** Whether cases that were found are written to the corpus. */
  keep: boolean;
}

/** Past this a case is taken for one that does not end: its process is ended. */
const ENDLESS_MS = 10 * CASE_MS;

/** Memory of the process, besides array buffers. */
const HEAP_MB = 1024;

const corpusOf = (target: string) => fileURLToPath(new URL(`corpus/${target}`, import.meta.url));

/** Runs the corpus of a target, then cases that are made, in a process that is ended with a case that does not end. */
export async function fuzz({
  target,
  seed,
  milliseconds,
  keep,
}: FuzzRequest): Promise<{cases: number; findings: Finding[]}> {
  const folder = await mkdtemp(join(tmpdir(), 'fuzz-'));
  const task: FuzzTask = {target, seed, milliseconds, corpus: corpusOf(target), running: join(folder, 'running')};
  try {
    const result = await runTask(task);
    if (keep) for (const finding of result.findings) await keepCase(target, finding);
    return result;
  } finally {
    await rm(folder, {recursive: true});
  }
}

function runTask(task: FuzzTask): Promise<{cases: number; findings: Finding[]}> {
  const child = fork(fileURLToPath(new URL('child.ts', import.meta.url)), [JSON.stringify(task)], {
    execArgv: ['--import', 'tsx', `--max-old-space-size=${HEAP_MB}`],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  const findings: Finding[] = [];
  let cases: number | undefined;
  let endless = false;
  let words = '';
  const watch = setInterval(() => {
    const {since} = runningCase(task);
    endless = since !== undefined && Date.now() - since > ENDLESS_MS;
    if (endless) child.kill('SIGKILL');
  }, 500);
  child.stderr!.on('data', (text: Buffer) => (words = `${words}${text}`.slice(0, 1000)));
  child.on('message', (message: ChildMessage) => {
    if (message.kind === 'end') cases = message.cases;
    else findings.push(message.finding);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject).once('close', () => {
      clearInterval(watch);
      if (cases === undefined) {
        const {of, since} = runningCase(task);
        if (since === undefined) return reject(new Error(`fuzz ${task.target} did not begin: ${words}`));
        findings.push({...of, fault: endless ? `did not end within ${ENDLESS_MS} ms` : `ended the process: ${words}`});
      }
      resolve({cases: cases ?? 0, findings});
    });
  });
}

/** The case that runs, or ran last, as the child has noted it. */
function runningCase({running}: FuzzTask): {of?: {seed: number} | {file: string}; since?: number} {
  try {
    return JSON.parse(readFileSync(running, 'utf8').split('\n')[0]) as {of: {seed: number}; since: number};
  } catch {
    // It has not begun, or writes.
    return {};
  }
}

async function keepCase(target: string, finding: Finding): Promise<void> {
  if (finding.seed === undefined) return;
  const {make, ending} = await TARGETS[target]();
  finding.file = `seed-${finding.seed}.${ending}`;
  await mkdir(corpusOf(target), {recursive: true});
  await writeFile(`${corpusOf(target)}/${finding.file}`, make(new Random(finding.seed)));
}
