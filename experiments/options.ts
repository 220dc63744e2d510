import {flag, integer, list, named, one, readArguments, share, text} from './arguments';
import {BACKENDS, type BackendName} from './device';
import {type Task, TASKS} from './prompts/tasks';

export const EXPERIMENTS = ['sanity', 'threshold'] as const;
export type Experiment = (typeof EXPERIMENTS)[number];

/** The rules of `threshold` (experiments/cases/threshold.ts). */
export const RULE_NAMES = ['default', 'paper', 'not permuted', 'causal-safe'] as const;
export type Rule = (typeof RULE_NAMES)[number];

/** Sizes of blocks and segments where they are not the library's. */
export interface Sizes {
  blockSize?: number;
  keyBlockSize?: number;
  segmentSize?: number;
}

export interface Options {
  lengths: number[];
  questions: number;
  tasks: Task[];
  thresholds: number[];
  sizes: Sizes;
  /** Names of rules for the choice of blocks. */
  rules: Rule[];
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

const LENGTHS: Record<Experiment, string> = {sanity: '1024', threshold: '4096,8192,16384'};
const THRESHOLDS = '0.7,0.8,0.85,0.9,0.95,0.99';

export const USAGE = `npm run experiments -- EXPERIMENT [options]
Reads prompts on this machine's GPU through WebGPU in Node (Dawn), exact and sparse, and writes what that costs and saves:
JSON, tables and plots.

  real           any checkpoint that the demo's runner loads; its options: npm run experiments -- real --help

With the demo's model:
  sanity         permutation alone and a threshold of 1 change nothing
  threshold      density, loss, needle and time by threshold and by rule

  --lengths A,B        tokens, multiples of 256 (default: sanity ${LENGTHS.sanity}, threshold ${LENGTHS.threshold})
  --questions N        questions of each task and length (default 40)
  --tasks A,B          ${TASKS.join(', ')} (default end)
  --thresholds A,B     0, most sparse, to 1, exact (default ${THRESHOLDS})
  --rules A,B          ${RULE_NAMES.join(', ')} (default: all)
  --block-size N       rows a block of queries (default: the library's, or the paper's)
  --key-block-size N   keys a block (default: likewise)
  --segment-size N     keys a segment (default: likewise)
  --backend NAME       webgpu (default), or cpu: plain JavaScript, for a few hundred tokens anywhere
  --no-timing          do not time attention
  --budget S           start no step after so many seconds
  --out DIR            folder of the JSON files (default build/experiments)
  --docs DIR           folder of the tables and plots (default docs/experiments)
  --continue           threshold: keep the rows of the JSON file that is there, run what it lacks
  --report             run nothing: tables and plots of the JSON file that is there
  --help               this text

VK_DRIVER_FILES names the Vulkan driver, DAWN another dawn.node.`;

const ACCEPTED = {
  ...{lengths: text, questions: text, tasks: text, thresholds: text, rules: text},
  ...{'block-size': text, 'key-block-size': text, 'segment-size': text, backend: text, budget: text},
  ...{out: text, docs: text, 'no-timing': flag, continue: flag, report: flag, help: flag},
};

/** Reads the arguments; the error of a bad one says which and what is accepted. */
export function parseCommand(args: string[]): Command | 'help' {
  const {values, positionals} = readArguments(args, ACCEPTED);
  if (values.help || args.length === 0) return 'help';
  const experiment = EXPERIMENTS.find((name) => name === positionals[0]);
  if (experiment === undefined || positionals.length > 1) {
    throw new Error(`got "${positionals.join(' ')}"; accepted: one of ${EXPERIMENTS.join(', ')}, real`);
  }
  const size = (option: 'block-size' | 'key-block-size' | 'segment-size', name: keyof Sizes): Sizes => {
    const value = values[option];
    const parse = (part: string) => integer(part, 8, 16_384, 8);
    return value === undefined ? {} : {[name]: one(`--${option}`, value, parse, 'a multiple of 8')};
  };
  return {
    experiment,
    options: {
      lengths: list(
        '--lengths',
        values.lengths ?? LENGTHS[experiment],
        (part) => integer(part, 256, 16_384, 256),
        'multiples of 256 to 16384',
      ),
      questions: one('--questions', values.questions ?? '40', (part) => integer(part, 1, 1000, 1), '1 to 1000'),
      tasks: list('--tasks', values.tasks ?? 'end', named(TASKS), TASKS.join(', ')),
      thresholds: list('--thresholds', values.thresholds ?? THRESHOLDS, share, 'numbers, 0 to 1'),
      sizes: {
        ...size('block-size', 'blockSize'),
        ...size('key-block-size', 'keyBlockSize'),
        ...size('segment-size', 'segmentSize'),
      },
      rules: list('--rules', values.rules ?? RULE_NAMES.join(','), named(RULE_NAMES), RULE_NAMES.join(', ')),
      timing: !values['no-timing'],
      budget: one('--budget', values.budget ?? '1000000', (part) => integer(part, 0, 1e9, 1), 'seconds'),
    },
    backend: one('--backend', values.backend ?? 'webgpu', named(BACKENDS), BACKENDS.join(', ')),
    out: values.out ?? 'build/experiments',
    docs: values.docs ?? 'docs/experiments',
    continued: values.continue ?? false,
    reportOnly: values.report ?? false,
  };
}
