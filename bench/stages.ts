import type {Stage} from './results';

/** The stage of a program, by the name of its class; a new program is `other` until it is listed here. */
const STAGE_OF: Array<[RegExp, Stage]> = [
  [/^(Proxy(Scores|Statistics|LogSums)|KeyScores|RankKeys|SortKeys)/, 'permute'],
  [/^(Summar|QueryDistances|Probe|Pool|ProxyMass|Block(Logits|LogSums|Scores)|Logit)/, 'score'],
  [/^(Select|SinkBlocks|KeepBlocks|BlockLists)/, 'select'],
  // WebGL's PermuteRows copies keys and values for this stage alone, and StoreAttention is its end.
  [/^(Attend|PermuteRows|StoreAttention)/, 'attend'],
];

export function stageOf(program: string): Stage {
  return STAGE_OF.find(([pattern]) => pattern.test(program))?.[1] ?? 'other';
}
