import {existsSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {sanity} from './cases/sanity';
import {threshold} from './cases/threshold';
import {continueRun} from './continue_run';
import {type ExperimentDevice, openDevice} from './device';
import {Experimenter} from './experimenter';
import {openSubject} from './measure/model';
import {type Command, type Experiment, parseCommand, USAGE} from './options';
import {report} from './report';
import {real} from './real/command';
import type {Run} from './results';
import {writeWhole} from './write_whole';

const CASES: Record<Experiment, (experimenter: Experimenter) => Promise<void>> = {
  sanity,
  threshold,
};

/** `npm run experiments`, and on a GPU host without node_modules `node build/gpu/experiments.mjs`; in the repository's root. */
async function main(): Promise<void> {
  const args = process.argv.slice(2);
  const packed = process.argv[1].endsWith('.mjs');
  const line = [packed ? 'node build/gpu/experiments.mjs' : 'npm run experiments --', ...args].join(' ');
  if (args[0] === 'real') {
    await real(args.slice(1), line, packed);
    return;
  }
  const command = parseCommand(args);
  if (command === 'help') {
    console.log(USAGE);
    return;
  }
  const json = join(command.out, `${command.experiment}.json`);
  for (const [option, given] of [
    ['--report', command.reportOnly],
    ['--continue', command.continued],
  ] as const) {
    if (given && !existsSync(json))
      throw new Error(`${option}: there is no ${json}; accepted: the --out folder of an earlier run`);
  }
  if (!command.reportOnly) {
    const device = await openDevice(command.backend);
    await runExperiment(command, device, line, json);
  }
  const run = JSON.parse(readFileSync(json, 'utf8')) as Run;
  const markdown = report(run);
  console.log(markdown);
  // A GPU host has no plotting library: --report writes tables and plots from its JSON elsewhere.
  if (packed) return;
  const {plots} = await import('./plots');
  mkdirSync(command.docs, {recursive: true});
  const images = plots(run).map(({name, title, svg}) => {
    writeFileSync(join(command.docs, `${name}.svg`), svg);
    return `![${title}](${name}.svg)`;
  });
  writeFileSync(join(command.docs, `${command.experiment}.md`), `${[markdown.trimEnd(), ...images].join('\n\n')}\n`);
}

async function runExperiment(
  {experiment, options, backend, continued}: Command,
  device: ExperimentDevice,
  line: string,
  json: string,
): Promise<void> {
  const log = (text: string) => console.error(text);
  const fresh: Run = {
    experiment,
    date: new Date().toISOString(),
    command: line,
    host: `Node ${process.version}${backend === 'webgpu' ? ' with Dawn' : ''}`,
    adapter: device.adapter,
    questions: options.questions,
    sizes: options.sizes,
    timed: options.timing && device.timer !== undefined,
    skipped: [],
    errors: [],
  };
  const run = continued ? continueRun(fresh, JSON.parse(readFileSync(json, 'utf8')) as Run, options) : fresh;
  log(`${run.host} on ${run.adapter}`);
  const save = (state: Run) => writeWhole(json, `${JSON.stringify(state, undefined, 1)}\n`);
  const subject = await openSubject(async (path) => {
    const {buffer, byteOffset, byteLength} = await readFile(path);
    return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
  });
  await CASES[experiment](new Experimenter(subject, device, options, {log, save}, run));
  save(run);
}

try {
  await main();
  // Dawn keeps the process alive.
  process.exit(0);
} catch (error) {
  console.error(`experiments: ${(error as Error).message}`);
  process.exit(1);
}
