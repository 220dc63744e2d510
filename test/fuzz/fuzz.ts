import {fork} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Random} from './random';
import {CASE_MS} from './run_case';
import {TARGETS} from './targets';
import type {ChildMessage, Finding, FuzzTask, RunningCase} from './child';
import {fileOfRepository} from './repository';

export interface FuzzRequest {
  target: string;
  seed: number;
  milliseconds: number;
  /** Processes, which share the seeds from the first on; 1. */
  jobs?: number;
  /** Whether cases that were found are written to the corpus. */
  keep: boolean;
  /** Told every minute what came of it so far. */
  onMinute?(result: FuzzResult): void;
}

export interface FuzzResult {
  cases: number;
  findings: Finding[];
}

/** Past this a case is taken for one that does not end: its process is ended. */
const ENDLESS_MS = 10 * CASE_MS;

/** Memory of the process, besides array buffers. */
const HEAP_MB = 1024;

/** Where this is a bundle, so is the process beside it. */
const CHILD = import.meta.url.endsWith('.mjs')
  ? {file: 'fuzz_child.mjs', flags: []}
  : {file: 'child.ts', flags: ['--import', 'tsx']};

const corpusOf = (target: string) => fileURLToPath(fileOfRepository(`test/fuzz/corpus/${target}`));

/**
 * Runs the corpus of a target, then cases that are made, in processes that are ended with a case that does not end. SIGTERM and SIGINT end it
 * before its time, with the result so far.
 */
export async function fuzz({target, seed, milliseconds, jobs = 1, keep, onMinute}: FuzzRequest): Promise<FuzzResult> {
  const folder = await mkdtemp(join(tmpdir(), 'fuzz-'));
  const tasks = Array.from({length: jobs}, (_, job) =>
    startTask({
      ...{target, seed: seed + job, step: jobs, milliseconds},
      corpus: corpusOf(target),
      running: join(folder, `running-${job}`),
    }),
  );
  const stop = () => tasks.forEach((task) => task.stop());
  const minutes = setInterval(() => onMinute?.(sumOf(tasks.map((task) => task.soFar()))), 60_000);
  process.once('SIGTERM', stop).once('SIGINT', stop);
  try {
    const result = sumOf(await Promise.all(tasks.map(({end}) => end)));
    if (keep) for (const finding of result.findings) await keepCase(target, finding);
    return result;
  } finally {
    clearInterval(minutes);
    process.off('SIGTERM', stop).off('SIGINT', stop);
    stop();
    await rm(folder, {recursive: true});
  }
}

/** Each process finds what is wrong with the corpus. */
function sumOf(results: FuzzResult[]): FuzzResult {
  const findings = results.flatMap((result) => result.findings);
  return {
    cases: results.reduce((sum, {cases}) => sum + cases, 0),
    findings: findings.filter(({file}, i) => file === undefined || findings.findIndex((f) => f.file === file) === i),
  };
}

function startTask(task: FuzzTask): {end: Promise<FuzzResult>; soFar(): FuzzResult; stop(): void} {
  const child = fork(fileURLToPath(new URL(CHILD.file, import.meta.url)), [JSON.stringify(task)], {
    execArgv: [...CHILD.flags, `--max-old-space-size=${HEAP_MB}`],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  const findings: Finding[] = [];
  let cases: number | undefined;
  let endless = false;
  let words = '';
  const watch = setInterval(() => {
    const running = runningCase(task);
    endless = running !== undefined && Date.now() - running.since > ENDLESS_MS;
    if (endless) child.kill('SIGKILL');
  }, 500);
  child.stderr!.on('data', (text: Buffer) => (words = `${words}${text}`.slice(0, 1000)));
  child.on('message', (message: ChildMessage) => {
    if (message.kind === 'end') cases = message.cases;
    else findings.push(message.finding);
  });
  const soFar = () => ({cases: cases ?? runningCase(task)?.cases ?? 0, findings});
  const end = new Promise<FuzzResult>((resolve, reject) => {
    child.once('error', reject).once('close', (_code, signal) => {
      clearInterval(watch);
      // Sent to it alone, or with this process.
      const isStopped = signal === 'SIGTERM' || signal === 'SIGINT';
      if (cases === undefined && !isStopped) {
        const running = runningCase(task);
        if (!running) return reject(new Error(`fuzz ${task.target} did not begin: ${words}`));
        const fault = endless ? `did not end within ${ENDLESS_MS} ms` : `ended the process: ${words}`;
        findings.push({...running.of, fault});
      }
      resolve(soFar());
    });
  });
  return {end, soFar, stop: () => child.kill()};
}

/** What the child has noted. */
function runningCase({running}: FuzzTask): RunningCase | undefined {
  try {
    return JSON.parse(readFileSync(running, 'utf8').split('\n')[0]) as RunningCase;
  } catch {
    // It has not begun, or writes.
    return undefined;
  }
}

async function keepCase(target: string, finding: Finding): Promise<void> {
  if (finding.seed === undefined) return;
  const {make, ending} = await TARGETS[target]();
  finding.file = `seed-${finding.seed}.${ending}`;
  await mkdir(corpusOf(target), {recursive: true});
  await writeFile(`${corpusOf(target)}/${finding.file}`, make(new Random(finding.seed)));
}
