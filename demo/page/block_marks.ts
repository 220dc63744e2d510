import type {BlockMask, BlockPicture} from '../engine/protocol';
import {formatPercent} from './format';

/** What one block of the picture is. */
export const Mark = {
  /** No query of the row's block sees a key of it. */
  unseen: 0,
  skipped: 1,
  kept: 2,
  needleSkipped: 3,
  needleKept: 4,
} as const;

export type MarkName = keyof typeof Mark;

/** `[queryBlocks × keyBlocks]` marks. */
export function markBlocks(picture: BlockPicture, {kept, needle}: BlockMask): Uint8Array {
  const {blockSize, keyBlockSize, queryBlocks, keyBlocks} = picture;
  const marks = new Uint8Array(queryBlocks * keyBlocks);
  const isNeedle = new Uint8Array(keyBlocks);
  for (const block of needle) isNeedle[block] = 1;
  for (let query = 0; query < queryBlocks; ++query) {
    for (let key = 0; key < keyBlocks; ++key) {
      const index = query * keyBlocks + key;
      // A row keeps its own segment whole: sorted, the blocks after the diagonal may hold keys of before it.
      const isKept = kept[index] !== 0;
      const isAfter = key * keyBlockSize >= (query + 1) * blockSize;
      if (isAfter && !isKept) continue;
      marks[index] = isNeedle[key]
        ? isKept
          ? Mark.needleKept
          : Mark.needleSkipped
        : isKept
          ? Mark.kept
          : Mark.skipped;
    }
  }
  return marks;
}

/** What the picture of one mask says, for those who do not see it. */
export function describeMask({keyBlocks, question}: BlockPicture, {kept, density, needle}: BlockMask): string {
  const share = `${formatPercent(density)} of the blocks kept`;
  if (needle.length === 0 || question.length === 0) return `${share}.`;
  const last = Math.max(...question);
  const seen = needle.filter((key) => kept[last * keyBlocks + key] !== 0).length;
  return needle.length === 1
    ? `${share}; the question ${seen === 1 ? 'reads' : 'skips'} the block of the fact.`
    : `${share}; the question reads ${seen} of the ${needle.length} blocks of the fact.`;
}
