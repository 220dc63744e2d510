import {parseArgs} from 'node:util';
import {type HeadShape, parseShape} from './shapes';

/** Groups of cases, in the order in which they run: the dearest questions first. */
export const GROUPS = [
  'agreement',
  'ours',
  'ort',
  'composed',
  'forms',
  'captured',
  'stacked',
  'synthetic',
  'auto',
  'decode',
  'gradient',
  'memory',
] as const;
export type Group = (typeof GROUPS)[number];

export const BACKENDS = ['webgpu', 'webgl'] as const;
export type BackendName = (typeof BACKENDS)[number];

/** ONNX Runtime runs in Node alone, and bytes are counted in the buffers of WebGPU. */
const WEBGL_GROUPS: readonly Group[] = GROUPS.filter((group) => group !== 'ort' && group !== 'memory');

/** What the cases need to know; passed into the browser as it is. */
export interface CaseOptions {
  only: Group[];
  /** Tokens, for every group; without it each has its own. */
  lengths?: number[];
  shapes: HeadShape[];
  /** Layers of the model to capture, from 0. */
  layers: number[];
  threshold: number;
  /** About how long one case may take. */
  caseSeconds: number;
  /** No case is started after so many seconds. */
  budget: number;
  /** Features that the device is not asked for, whatever the adapter has. */
  without: string[];
}

export interface Command {
  cases: CaseOptions;
  backend: BackendName;
  browser: boolean;
  software: boolean;
  /** Folder for `results.json` and `benchmarks.md`; without it `build/bench` and `docs`. */
  out?: string;
  /** Results of earlier runs that the report shows as well. */
  add: string[];
  /** Whether to write the report of `add` alone. */
  reportOnly: boolean;
}

export const USAGE = `npm run bench -- [options]
Times attention on this machine's GPU through WebGPU in Node (Dawn), prints tables, writes JSON and Markdown.

  --only A,B         groups of cases: ${GROUPS.join(', ')} (default: all that the backend has)
  --lengths A,B      tokens, for every group (default: each group its own; captured goes up to 16384)
  --shapes A,B       heads of the exact cases, as 8x64 or 32/8x128 (default: 8x64,32/8x128; webgl: 8x64)
  --layers A,B       layers of the model that are captured, from 0 (default: 1,3,5,7)
  --threshold X      how much PBS-Attn keeps, 0 (least) to 1 (exact attention) (default 0.9)
  --case-seconds X   about how long one case may take (default 4); one that would take far longer is left out
  --budget X         start no case after so many seconds; those left out are named (default: no limit)
  --without A,B      features of a WebGPU device to leave out, as chromium-experimental-subgroup-matrix
  --out DIR          write DIR/results.json and DIR/benchmarks.md (default: build/bench/results.json, docs/benchmarks.md;
                     --browser: docs/benchmarks-chromium.md or docs/benchmarks-webgl.md); sections and figures that were not
                     measured stay as they are there
  --add A,B          JSON files of earlier runs to show in the same report
  --report           run nothing: write the report of --add
  --browser          in Chromium instead of Node; without ONNX Runtime
  --backend NAME     ${BACKENDS.join(' or ')} (default webgpu); webgl with --browser only, without ort and memory
  --software         with --browser: on a software adapter
  --help             this text

VK_DRIVER_FILES names the Vulkan driver, DAWN another dawn.node, ORT_PATH another folder of onnxruntime-node,
CHROME_BIN another browser.`;

const text = {type: 'string'} as const;
const flag = {type: 'boolean'} as const;
const ACCEPTED = {
  ...{only: text, lengths: text, shapes: text, layers: text, threshold: text},
  ...{backend: text, 'case-seconds': text, budget: text, without: text, out: text, add: text},
  ...{report: flag, browser: flag, software: flag, help: flag},
};

function readArguments(args: string[]) {
  try {
    return parseArgs({args, options: ACCEPTED}).values;
  } catch (error) {
    const accepted = Object.keys(ACCEPTED).map((name) => `--${name}`);
    throw new Error(`${(error as Error).message}; accepted: ${accepted.join(', ')}`, {cause: error});
  }
}

/** Reads the arguments; the error of a bad one says which and what is accepted. */
export function parseCommand(args: string[]): Command | 'help' {
  const values = readArguments(args);
  if (values.help) return 'help';
  const backend = one('--backend', values.backend ?? 'webgpu', BACKENDS);
  if (backend === 'webgl' && !values.browser && !values.report) {
    throw new Error('--backend webgl needs --browser: Node has no WebGL');
  }
  const defaultShapes = backend === 'webgl' ? '8x64' : '8x64,32/8x128';
  const shapeList = list('--shapes', values.shapes ?? defaultShapes, parseShape, '8x64 or 32/8x128');
  const lengthOf = (part: string) => integer(part, 1, 2 ** 20);
  const layerOf = (part: string) => integer(part, 0, 1000);
  const groups: readonly Group[] = backend === 'webgl' ? WEBGL_GROUPS : GROUPS;
  const acceptedGroups =
    backend === 'webgl'
      ? `${groups.join(', ')} (ort runs in Node, memory counts the buffers of WebGPU)`
      : groups.join(', ');
  const isGroup = (part: string) => groups.find((group) => group === part);
  return {
    cases: {
      only: values.only === undefined ? [...groups] : list('--only', values.only, isGroup, acceptedGroups),
      lengths:
        values.lengths === undefined
          ? undefined
          : list('--lengths', values.lengths, lengthOf, 'integers from 1 to 1048576'),
      shapes: shapeList,
      layers: list('--layers', values.layers ?? '1,3,5,7', layerOf, 'integers from 0'),
      threshold: number('--threshold', values.threshold ?? '0.9', 0, 1),
      caseSeconds: number('--case-seconds', values['case-seconds'] ?? '4', 0.01, 600),
      budget: number('--budget', values.budget ?? '1e9', 0, 1e9),
      without: values.without?.split(',') ?? [],
    },
    backend,
    browser: values.browser ?? false,
    software: values.software ?? false,
    out: values.out,
    add: values.add?.split(',') ?? [],
    reportOnly: values.report ?? false,
  };
}

function one<T extends string>(option: string, value: string, accepted: readonly T[]): T {
  const found = accepted.find((name) => name === value);
  if (found === undefined) throw new Error(`${option} is "${value}"; accepted: ${accepted.join(', ')}`);
  return found;
}

function list<T>(option: string, value: string, parse: (part: string) => T | undefined, accepted: string): T[] {
  return value.split(',').map((part) => {
    const parsed = parse(part.trim());
    if (parsed === undefined) throw new Error(`${option} has "${part}"; accepted: ${accepted}`);
    return parsed;
  });
}

function integer(text: string, least: number, most: number): number | undefined {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  return value >= least && value <= most ? value : undefined;
}

function number(option: string, text: string, least: number, most: number): number {
  const value = text.trim() === '' ? NaN : Number(text);
  if (!(value >= least && value <= most)) {
    throw new Error(`${option} is "${text}"; accepted: a number from ${least} to ${most}`);
  }
  return value;
}
