import {existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {openLocalModel} from '../../hosts/local_model';
import {type ExperimentDevice, openDevice} from '../device';
import {writeWhole} from '../write_whole';
import {firstToken} from './first_token';
import {Measurer} from './measurer';
import {parseReal, type Part, type RealCommand, USAGE} from './options';
import {quality} from './quality';
import {realReport} from './report';
import {parseRun, type RealRun, runJson} from './results';
import {summarise, summaryJson} from './summary';
import {tasks} from './tasks';
import {tokensOf} from './texts';
import {time} from './time';
import {tuner} from './tuner';

const CASES: Record<Part, (measurer: Measurer) => Promise<void>> = {
  quality,
  time,
  'first-token': firstToken,
  tasks,
  tuner,
};

const SUMMARY = 'summary.json';

/** `npm run experiments -- real`. */
export async function real(args: string[], line: string, packed: boolean): Promise<void> {
  const command = parseReal(args);
  if (command === 'help') {
    console.log(USAGE);
    return;
  }
  if (!command.reportOnly) {
    const device = await openDevice(
      command.backend,
      command.matrixUnits ? [] : ['chromium-experimental-subgroup-matrix'],
    );
    console.log(realReport(await measure(command, device, line)));
  }
  // A GPU host has no plotting library: --report writes tables and plots from its JSON elsewhere.
  if (!packed) await writeDocs(command);
}

const jsonPath = ({out, name, matrixUnits}: RealCommand) =>
  join(out, `${name}${matrixUnits ? '' : '-no-matrix-units'}.json`);

/** Runs what the command asks for on an open device. */
export async function measure(
  command: RealCommand,
  device: ExperimentDevice,
  line: string,
  log = (text: string) => console.error(text),
): Promise<RealRun> {
  const {options} = command;
  const path = jsonPath(command);
  const fresh: RealRun = {
    model: command.name,
    date: new Date().toISOString(),
    commands: [line],
    host: `Node ${process.version}${command.backend === 'webgpu' ? ' with Dawn' : ''}`,
    adapter: device.adapter,
    matrixUnits: command.matrixUnits,
    rows: options.rows,
    prompts: options.prompts,
    ...{quality: [], time: [], firstToken: [], tasks: [], tuned: [], tuner: [], skipped: [], errors: []},
  };
  const run = command.continued && existsSync(path) ? continued(fresh, parseRun(readFileSync(path, 'utf8'))) : fresh;
  log(`${run.model}: ${run.host} on ${run.adapter}`);
  const longest = Math.max(...options.lengths);
  const subject = await openLocalModel(command.model, longest);
  try {
    const encoded = new Map(options.texts.map((text) => [text.name, tokensOf(subject.tokenizer, text, longest)]));
    const tokens = (text: string, length: number) => encoded.get(text)!.slice(0, length);
    const save = () => writeWhole(path, runJson(run));
    const measurer = new Measurer(subject, device, options, run, tokens, log, save);
    for (const part of command.parts) await CASES[part](measurer);
    save();
  } finally {
    subject.model.dispose();
  }
  return run;
}

/** A run that starts with the rows of an earlier one of the same measures on the same device. */
export function continued(run: RealRun, earlier: RealRun): RealRun {
  for (const name of ['model', 'host', 'adapter', 'matrixUnits', 'rows', 'prompts'] as const) {
    if (run[name] !== earlier[name]) {
      throw new Error(`--continue: ${name} ${run[name]}; accepted: ${earlier[name]}, as in the earlier run`);
    }
  }
  if (earlier.errors.length > 0) {
    throw new Error(`--continue: the device failed in the earlier run: ${earlier.errors[0]}`);
  }
  const {quality, time, firstToken, tasks, tuned, tuner} = earlier;
  return {...run, commands: [...earlier.commands, ...run.commands], quality, time, firstToken, tasks, tuned, tuner};
}

/** Copies every run, writes its tables and plots, and the summary of all that are there. */
async function writeDocs({out, docs}: RealCommand): Promise<void> {
  const {realPlots} = await import('./plots');
  mkdirSync(docs, {recursive: true});
  const runsIn = (folder: string) =>
    readdirSync(folder)
      .filter((name) => name.endsWith('.json') && name !== SUMMARY)
      .sort()
      .map((name) => [name.replace('.json', ''), parseRun(readFileSync(join(folder, name), 'utf8'))] as const);
  for (const [name, run] of runsIn(out)) {
    writeFileSync(join(docs, `${name}.json`), runJson(run));
    const images = realPlots(run).map((plot) => {
      writeFileSync(join(docs, `${name}-${plot.name}.svg`), plot.svg);
      return `![${plot.title}](${name}-${plot.name}.svg)`;
    });
    writeFileSync(join(docs, `${name}.md`), `${[realReport(run).trimEnd(), ...images].join('\n\n')}\n`);
  }
  const runs = runsIn(docs).map(([, run]) => run);
  // Where matrix units were hidden, times are not those that the device is for.
  writeFileSync(join(docs, SUMMARY), summaryJson(runs.filter(({matrixUnits}) => matrixUnits).flatMap(summarise)));
}
