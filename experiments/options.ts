import {parseArgs} from 'node:util';
import {BACKENDS, type BackendName} from './device';
import {type Candidate, parseCandidate} from './selection/candidate';
import {type Task, TASKS} from './prompts/tasks';

export const EXPERIMENTS = [
  'sanity',
  'segment-size',
  'threshold',
  'block-size',
  'proxy',
  'first-token',
  'per-head',
  'tuner',
  'selection',
] as const;
export type Experiment = (typeof EXPERIMENTS)[number];

/** A candidate with its threshold, unless it is to be found from the density. */
export interface ThresholdCandidate {
  candidate: Candidate;
  threshold?: number;
}

export interface Options {
  lengths: number[];
  questions: number;
  tasks: Task[];
  thresholds: number[];
  segmentSizes: number[];
  blockSizes: number[];
  candidates: ThresholdCandidate[];
  /** Density that each candidate without a threshold is brought to, one for each length. */
  densities: number[];
  /** Names of rules for the choice of blocks. */
  rules: Rule[];
  /** Relative L1 errors of a layer's output that the tuner is allowed. */
  errors: number[];
  /** Whether attention is timed. */
  timing: boolean;
  /** No step is started after so many seconds. */
  budget: number;
}

export interface Command {
  experiment: Experiment;
  options: Options;
  backend: BackendName;
  /** Folder of the JSON files. */
  out: string;
  /** Folder of the Markdown and the plots. */
  docs: string;
  /** Keep the rows of the JSON file that is there, run what it lacks. */
  continued: boolean;
  /** Write the report of the JSON file that is there, run nothing. */
  reportOnly: boolean;
}

/** What a sub-command does where nothing else is asked. */
const DEFAULTS: Record<Experiment, Partial<Record<'lengths' | 'tasks' | 'thresholds', string>>> = {
  sanity: {lengths: '1024'},
  'segment-size': {lengths: '8192,16384'},
  threshold: {lengths: '4096,8192,16384', thresholds: '0.7,0.8,0.85,0.9,0.95,0.99'},
  'block-size': {lengths: '4096,8192,16384'},
  proxy: {lengths: '4096,16384'},
  'first-token': {lengths: '1024,2048,4096,8192,16384'},
  'per-head': {lengths: '4096,16384'},
  tuner: {lengths: '4096,16384'},
  selection: {lengths: '4096,8192,16384', tasks: 'text-200'},
};

/** The rules of `threshold` (experiments/cases/sweeps.ts). */
export const RULE_NAMES = [
  'default',
  'not permuted',
  'no remainder',
  'no probe rows',
  'exact last block alone',
  'paper',
  'paper not permuted',
] as const;
export type Rule = (typeof RULE_NAMES)[number];

const CANDIDATES = 'pooled,mass,strided-8,outlying-8,sinkless-8';

export const USAGE = `npm run experiments -- EXPERIMENT [options]
Reads prompts with the demo's model on this machine's GPU through WebGPU in Node (Dawn), exact and sparse, and writes what
that costs and saves: JSON, tables and plots.

  sanity         permutation alone and a threshold of 1 change nothing
  segment-size   density, loss, needle and time by segment size
  threshold      the same by threshold and by rule: the defaults, without one of their parts, and the paper's
  block-size     the same by block size
  proxy          how well the last query block predicts the keys that others need
  first-token    time to the first token, exact against sparse
  per-head       which heads gain from the permutation
  tuner          does what tunePBSAttention chooses hold on another book, and would thresholds by head pay?
  selection      candidates for a better choice of blocks (experiments/selection/candidate.ts)

  --lengths A,B        tokens, multiples of 256 (default: each experiment its own, up to 16384)
  --questions N        questions of each task and length (default 40)
  --tasks A,B          ${TASKS.join(', ')} (default end; selection: text-200)
  --thresholds A,B     share of attention to keep, 0 to 1 (default 0.9; threshold: 0.7,0.8,0.85,0.9,0.95,0.99)
  --segment-sizes A,B  keys a segment (default 256; segment-size: 64 to 2048)
  --block-sizes A,B    rows a block (default 128; block-size: 32,64,128)
  --candidates A,B     as sinkless-8, or sinkless-8@0.9 with a threshold (default ${CANDIDATES})
  --rules A,B          ${RULE_NAMES.join(', ')}
                       (default: all)
  --densities A,B      one for each length: candidates without a threshold get the one that keeps so many blocks
                       (default: --thresholds instead)
  --errors A,B         relative L1 errors that the tuner is allowed (default 0.02,0.05,0.1)
  --backend NAME       webgpu (default), or cpu: plain JavaScript, for a few hundred tokens anywhere
  --no-timing          do not time attention
  --budget S           start no step after so many seconds
  --out DIR            folder of the JSON files (default build/experiments)
  --docs DIR           folder of the tables and plots (default docs/experiments)
  --continue           sweeps: keep the rows of the JSON file that is there, run what it lacks
  --report             run nothing: tables and plots of the JSON file that is there
  --help               this text

VK_DRIVER_FILES names the Vulkan driver, DAWN another dawn.node.`;

const text = {type: 'string'} as const;
const flag = {type: 'boolean'} as const;
const ACCEPTED = {
  ...{lengths: text, questions: text, tasks: text, thresholds: text, 'segment-sizes': text, 'block-sizes': text},
  ...{
    candidates: text,
    rules: text,
    densities: text,
    errors: text,
    'no-timing': flag,
    budget: text,
    backend: text,
    out: text,
    docs: text,
  },
  ...{continue: flag, report: flag, help: flag},
};

/** Reads the arguments; the error of a bad one says which and what is accepted. */
export function parseCommand(args: string[]): Command | 'help' {
  const {values, positionals} = readArguments(args);
  if (values.help || args.length === 0) return 'help';
  const experiment = EXPERIMENTS.find((name) => name === positionals[0]);
  if (experiment === undefined || positionals.length > 1) {
    throw new Error(`got "${positionals.join(' ')}"; accepted: one of ${EXPERIMENTS.join(', ')}`);
  }
  const given = {...DEFAULTS[experiment], ...values};
  const isTask = (part: string) => TASKS.find((task) => task === part);
  const lengths = list(
    '--lengths',
    given.lengths!,
    (part) => integer(part, 256, 16_384, 256),
    'multiples of 256 to 16384',
  );
  const densities =
    values.densities === undefined ? [] : list('--densities', values.densities, share, 'numbers, 0 to 1');
  if (densities.length > 0 && densities.length !== lengths.length) {
    throw new Error(`--densities has ${densities.length} numbers; accepted: one for each of ${lengths.length} lengths`);
  }
  const sizes = (name: string, value: string) =>
    list(name, value, (part) => integer(part, 8, 16_384, 8), 'multiples of 8');
  return {
    experiment,
    options: {
      lengths,
      questions: one('--questions', values.questions ?? '40', (part) => integer(part, 1, 1000, 1), '1 to 1000'),
      tasks: list('--tasks', given.tasks ?? 'end', isTask, TASKS.join(', ')),
      thresholds: list('--thresholds', given.thresholds ?? '0.9', share, 'numbers, 0 to 1'),
      segmentSizes: sizes(
        '--segment-sizes',
        values['segment-sizes'] ?? (experiment === 'segment-size' ? '64,128,256,512,1024,2048' : '256'),
      ),
      blockSizes: sizes('--block-sizes', values['block-sizes'] ?? (experiment === 'block-size' ? '32,64,128' : '128')),
      candidates: (values.candidates ?? CANDIDATES).split(',').map(readCandidate),
      densities,
      rules: list(
        '--rules',
        values.rules ?? RULE_NAMES.join(','),
        (part) => RULE_NAMES.find((rule) => rule === part),
        RULE_NAMES.join(', '),
      ),
      errors: list(
        '--errors',
        values.errors ?? '0.02,0.05,0.1',
        (part) => share(part) || undefined,
        'numbers above 0, to 1',
      ),
      timing: !values['no-timing'],
      budget: one('--budget', values.budget ?? '1000000', (part) => integer(part, 0, 1e9, 1), 'seconds'),
    },
    backend: one(
      '--backend',
      values.backend ?? 'webgpu',
      (part) => BACKENDS.find((name) => name === part),
      BACKENDS.join(', '),
    ),
    out: values.out ?? 'build/experiments',
    docs: values.docs ?? 'docs/experiments',
    continued: values.continue ?? false,
    reportOnly: values.report ?? false,
  };
}

function readArguments(args: string[]) {
  try {
    return parseArgs({args, options: ACCEPTED, allowPositionals: true});
  } catch (error) {
    const accepted = Object.keys(ACCEPTED).map((name) => `--${name}`);
    throw new Error(`${(error as Error).message}; accepted: ${accepted.join(', ')}`, {cause: error});
  }
}

function readCandidate(part: string): ThresholdCandidate {
  const [name, threshold] = part.split('@');
  return {
    candidate: parseCandidate(name),
    ...(threshold !== undefined && {threshold: one('--candidates', threshold, share, 'NAME@THRESHOLD, 0 to 1')}),
  };
}

function list<T>(option: string, value: string, parse: (part: string) => T | undefined, accepted: string): T[] {
  return value.split(',').map((part) => one(option, part.trim(), parse, accepted));
}

function one<T>(option: string, part: string, parse: (part: string) => T | undefined, accepted: string): T {
  const parsed = parse(part);
  if (parsed === undefined) throw new Error(`${option} has "${part}"; accepted: ${accepted}`);
  return parsed;
}

function integer(text: string, least: number, most: number, step: number): number | undefined {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  return value >= least && value <= most && value % step === 0 ? value : undefined;
}

function share(text: string): number | undefined {
  const value = text.trim() === '' ? NaN : Number(text);
  return value >= 0 && value <= 1 ? value : undefined;
}
