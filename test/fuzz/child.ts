import {openSync, writeSync} from 'node:fs';
import {readdir, readFile} from 'node:fs/promises';
import {Random} from './random';
import {runCase} from './run_case';
import {TARGETS} from './targets';

export interface Finding {
  /** Of a case that was made. */
  seed?: number;
  /** Of the corpus: that it was found in, or that it was written to. */
  file?: string;
  fault: string;
}

/** What a child is told. */
export interface FuzzTask {
  target: string;
  /** Of the first case that is made; each has one that is higher by `step`. */
  seed: number;
  step: number;
  milliseconds: number;
  /** Folder with cases that are run first. */
  corpus: string;
  /** File for a {@link RunningCase}, for who outlives this process. */
  running: string;
}

/** The case that runs, or ran last. */
export interface RunningCase {
  of: {seed: number} | {file: string};
  /** When it began, in ms since 1970. */
  since: number;
  /** How many ran before it. */
  cases: number;
}

export type ChildMessage = {kind: 'finding'; finding: Finding} | {kind: 'end'; cases: number};

async function runTask({target: name, seed, step, milliseconds, corpus, running}: FuzzTask): Promise<void> {
  const say = (message: ChildMessage) => process.send!(message);
  const file = openSync(running, 'w');
  const note = (running: RunningCase) => writeSync(file, `${JSON.stringify(running)}\n`.padEnd(200), 0);
  // The library that tokenizes warns of what it does not know.
  console.warn = () => {};
  const target = await TARGETS[name]();
  let cases = 0;
  const check = async (of: RunningCase['of'], input: () => Uint8Array) => {
    note({of, since: Date.now(), cases: cases++});
    const fault = await runCase(target, input());
    if (fault !== undefined) say({kind: 'finding', finding: {...of, fault}});
  };
  for (const file of (await readdir(corpus).catch(() => [] as string[])).sort()) {
    const input = new Uint8Array(await readFile(`${corpus}/${file}`));
    await check({file}, () => input);
  }
  const end = performance.now() + milliseconds;
  for (let next = seed; performance.now() < end; next += step)
    await check({seed: next}, () => target.make(new Random(next)));
  say({kind: 'end', cases});
}

void runTask(JSON.parse(process.argv[2]) as FuzzTask).then(() => process.disconnect());
