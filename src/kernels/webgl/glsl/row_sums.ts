import {unroll} from '../../unroll.js';
import {groupRows} from './tiles.js';

/*
 * Shader text of sums of rows, each with a weight for each of a group's four rows. A fragment adds up a texel of them: as
 * many vectors for each of the four as the draw buffers hold, `sum0`, `sum1`, …
 */

/** `sum0`, `sum1`, … at zero or where the round before left them, for programs with the input `before`. */
export function startSums(tileKeys: number, firstRound: boolean): string {
  return firstRound
    ? unroll(tileKeys, (layer) => `vec4 sum${layer} = vec4(0.0);`, '\n  ')
    : `ivec2 old = beforeAt(row);
  ${unroll(tileKeys, (layer) => `vec4 sum${layer} = fetchBefore(old, texel, ${layer});`, '\n  ')}`;
}

/** What `addRows` is told of a program. */
interface AddedRows {
  tileKeys: number;
  /** Whether a fragment walks over a part of the slots. */
  split?: boolean;
  /** Expressions: where among the input `rows` those of the head start, and the last of them that may be read. */
  first: string;
  last: string;
  /**
   * Defines, for key k of the tile `tile`, `weights`, those of row `i` of `rows`, and `unseen`, which of the four do not see it: not
   * even what is not finite in the row counts for them, where zero times a NaN would be a NaN.
   */
  weights: (k: number) => string;
}

/**
 * For the body of `compute`: adds up the rows of all slots of the round and writes the sums. Expects in scope `group`,
 * `slots` and, where it is split, `part`; and `at`, the place of the group in the texture of scores.
 */
export function addRows({tileKeys, split, first, last, weights}: AddedRows): string {
  const vectors = tileKeys / 4;
  return `int firstOfHead = ${first};
  int lastOfHead = ${last};
  for (int slot = ${split ? 'part' : '0'}; slot < slots; slot += ${split ? 'parts' : '1'}) {
    int block = blockOf(group, slot);
    int tile = slot * tilesPerBlock;
    for (int t = 0; t < tilesPerBlock; t++, tile++) {
      ${unroll(vectors, (i) => `ivec4 rows${i} = firstOfHead + min(positionsIn(block, t, ${i}), lastOfHead);`, '\n      ')}
      ${unroll(
        tileKeys,
        (k) => `{
        int i = rows${Math.floor(k / 4)}[${k % 4}];
        ivec2 rowAt = rowsAt(i);
        ${weights(k)}
        ${unroll(vectors, (v) => `vec4 x${v} = fetchRows(rowAt, ${vectors} * texel + ${v}, 0);`, '\n        ')}
        if (any(unseen)) {
          ${unroll(groupRows, (q) => `if (!unseen[${q}]) { ${addVectors(q, vectors)} }`, '\n          ')}
        } else {
          ${unroll(groupRows, (q) => addVectors(q, vectors), '\n          ')}
        }
      }`,
        '\n      ',
      )}
    }
  }
  ${unroll(tileKeys, (layer) => `result${layer} = sum${layer};`, '\n  ')}`;
}

const addVectors = (q: number, vectors: number) =>
  unroll(vectors, (v) => `sum${q * vectors + v} += weights[${q}] * x${v};`, ' ');
