import {flag, integer, list, named, one, readArguments, text} from '../arguments';
import {BACKENDS, type BackendName} from '../device';
import {parseRule, type Rule, RULE_FORM} from './rules';
import {DEFAULT_TEXTS, parseText, type TextSource} from './texts';

export const PARTS = ['quality', 'time', 'first-token', 'tasks', 'tuner'] as const;
export type Part = (typeof PARTS)[number];

/** Parts that are run unless others are asked for: the tuner's takes about as long as quality, and says nothing of --rules. */
const DEFAULT_PARTS = PARTS.filter((part) => part !== 'tuner');

const TIMING: readonly Part[] = ['time', 'first-token'];

export interface RealOptions {
  lengths: number[];
  texts: TextSource[];
  rules: Rule[];
  /** Rows a text by which distributions are compared. */
  rows: number;
  /** Layers on which attention is timed. */
  timedLayers: number;
  /** Prompts a task. */
  prompts: number;
  /** No step is started after so many seconds. */
  budget: number;
}

export interface RealCommand {
  /** Folder of the checkpoint. */
  model: string;
  /** How the model is called in tables and files. */
  name: string;
  parts: Part[];
  options: RealOptions;
  backend: BackendName;
  matrixUnits: boolean;
  out: string;
  docs: string;
  continued: boolean;
  reportOnly: boolean;
}

export const USAGE = `npm run experiments -- real --model DIR [options]
Exact attention against rules for the choice of blocks, on a checkpoint in the form of Hugging Face (config.json,
tokenizer.json, *.safetensors of a Llama, Mistral, Qwen2 or Qwen3), in Node with Dawn. Rows are saved as they come.

  --model DIR        the checkpoint
  --name NAME        of the model in tables and files (default: the folder's)
  --only A,B         ${PARTS.join(', ')} (default: all but tuner, which takes the first
                     text at the least length to tune on, the others at the greatest, and rules of its own)
  --lengths A,B      tokens (default 8192,16384)
  --texts A,B        files, or folders for all TypeScript in them, PATH or PATH@CHARACTERS
                     (default ${DEFAULT_TEXTS.join(',')})
  --rules A,B        ${RULE_FORM}
                     (default default,paper,oracle)
  --rows N           rows a text by which distributions are compared (default 256)
  --timed-layers N   layers on which attention is timed (default 3)
  --prompts N        prompts a task (default 8)
  --no-timing        neither time nor first-token
  --no-matrix-units  as if the device had none; a file of its own
  --backend NAME     webgpu (default) or cpu
  --budget S         start no step after so many seconds
  --out DIR          folder of the JSON (default build/experiments/real)
  --docs DIR         folder of JSON, tables, plots and the summary (default docs/experiments/real)
  --continue         keep the rows of the JSON that is there, run what it lacks
  --report           run nothing: tables and plots of every JSON in --out
  --help             this text`;

const ACCEPTED = {
  ...{model: text, name: text, only: text, lengths: text, texts: text, rules: text, rows: text},
  ...{'timed-layers': text, prompts: text, 'no-timing': flag, 'no-matrix-units': flag, backend: text, budget: text},
  ...{out: text, docs: text, continue: flag, report: flag, help: flag},
};

export function parseReal(args: string[]): RealCommand | 'help' {
  const {values, positionals} = readArguments(args, ACCEPTED);
  if (values.help || args.length === 0) return 'help';
  if (positionals.length > 0) throw new Error(`got "${positionals.join(' ')}"; accepted: options alone`);
  const reportOnly = values.report ?? false;
  if (values.model === undefined && !reportOnly) throw new Error('--model is missing; accepted: a folder');
  const model = values.model ?? '';
  const parts = values.only === undefined ? DEFAULT_PARTS : list('--only', values.only, named(PARTS), PARTS.join(', '));
  const count = (option: 'rows' | 'timed-layers' | 'prompts', otherwise: string) =>
    one(`--${option}`, values[option] ?? otherwise, (part) => integer(part, 1, 10_000, 1), '1 to 10000');
  return {
    model,
    name: values.name ?? model.split('/').filter(Boolean).at(-1) ?? '',
    parts: values['no-timing'] ? parts.filter((part) => !TIMING.includes(part)) : parts,
    options: {
      lengths: list('--lengths', values.lengths ?? '8192,16384', (part) => integer(part, 64, 1e6, 1), '64 or more'),
      texts: list('--texts', values.texts ?? DEFAULT_TEXTS.join(','), parseText, 'PATH or PATH@CHARACTERS'),
      rules: list('--rules', values.rules ?? 'default,paper,oracle', parseRule, RULE_FORM),
      rows: count('rows', '256'),
      timedLayers: count('timed-layers', '3'),
      prompts: count('prompts', '8'),
      budget: one('--budget', values.budget ?? '1000000', (part) => integer(part, 0, 1e9, 1), 'seconds'),
    },
    backend: one('--backend', values.backend ?? 'webgpu', named(BACKENDS), BACKENDS.join(', ')),
    matrixUnits: !values['no-matrix-units'],
    out: values.out ?? 'build/experiments/real',
    docs: values.docs ?? 'docs/experiments/real',
    continued: values.continue ?? false,
    reportOnly,
  };
}
