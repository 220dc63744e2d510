import type {Stage} from './results';

/** The stage of a program, by the name of its class; a new program is `other` until it is listed here. */
const STAGE_OF: Array<[RegExp, Stage]> = [
  [/^(Proxy(Statistics|LogSums)|KeyScores|SortKeys)/, 'permute'],
  [/^(Pool|ProxyMass|BlockScores)/, 'score'],
  [/^Select/, 'select'],
  [/^Attend/, 'attend'],
];

export function stageOf(program: string): Stage {
  return STAGE_OF.find(([pattern]) => pattern.test(program))?.[1] ?? 'other';
}
