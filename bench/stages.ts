import type {Stage} from './results';

/** The stage of a program, by the name of its class; a new program is `other` until it is listed here. */
const STAGE_OF: Array<[RegExp, Stage]> = [
  [/^(Segment|Proxy|KeyScores|KeysInPlace|RankKeys|SortKeys)/, 'permute'],
  [/^(Sampled|SortedKeys|Normaliser|Pool|Block(Logits|Scores)|Logit)/, 'score'],
  [/^(Select|SinkBlocks|KeepBlocks|BlockLists)/, 'select'],
  // WebGL's PermuteRows copies keys and values for this stage, and keys for scores by the sampled estimate, a smaller part.
  // StoreAttention is its end.
  [/^(Attend|PermuteRows|StoreAttention)/, 'attend'],
];

export function stageOf(program: string): Stage {
  return STAGE_OF.find(([pattern]) => pattern.test(program))?.[1] ?? 'other';
}
