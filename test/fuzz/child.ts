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
  /** Of the first case that is made; the next has the next. */
  seed: number;
  milliseconds: number;
  /** Folder with cases that are run first. */
  corpus: string;
  /** File in which the case that runs is noted, for who outlives this process. */
  running: string;
}

export type ChildMessage = {kind: 'finding'; finding: Finding} | {kind: 'end'; cases: number};

async function runTask({target: name, seed, milliseconds, corpus, running}: FuzzTask): Promise<void> {
  const say = (message: ChildMessage) => process.send!(message);
  const note = openSync(running, 'w');
  // The library that tokenizes warns of what it does not know.
  console.warn = () => {};
  const target = await TARGETS[name]();
  let cases = 0;
  const check = async (of: {seed: number} | {file: string}, input: () => Uint8Array) => {
    writeSync(note, `${JSON.stringify({of, since: Date.now()})}\n`.padEnd(200), 0);
    ++cases;
    const fault = await runCase(target, input());
    if (fault !== undefined) say({kind: 'finding', finding: {...of, fault}});
  };
  for (const file of (await readdir(corpus).catch(() => [] as string[])).sort()) {
    const input = new Uint8Array(await readFile(`${corpus}/${file}`));
    await check({file}, () => input);
  }
  const end = performance.now() + milliseconds;
  for (let next = seed; performance.now() < end; ++next) await check({seed: next}, () => target.make(new Random(next)));
  say({kind: 'end', cases});
}

void runTask(JSON.parse(process.argv[2]) as FuzzTask).then(() => process.disconnect());
