import type {TensorInfo} from '@tensorflow/tfjs-core';
import {rowsHavePositions} from '../../../attention/block_geometry.js';
import {orderRows} from '../../../attention/sampled_estimate.js';
import {unroll} from '../../unroll.js';
import {evenWork} from '../runtime/launches.js';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {keysVariant} from '../wgsl/key_lengths.js';
import {logOfSum} from '../wgsl/not_finite.js';
import {rowInputs} from '../wgsl/rows.js';
import {chooseScoreTile, scoreTile} from '../wgsl/score_tile.js';
import type {ScoreForm} from '../wgsl/score_hooks.js';
import {hookedScore, hookFunctions, hooksOfRow, scoreForm} from '../wgsl/score_hooks.js';
import {addScores, emptyRows, mergeParts} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {columnOf, invocationPlace, rowOf, tileKeys, tileQueries, tileThreads} from '../wgsl/tile.js';

/**
 * Part of stage 1, permute, by the sampled estimate: float32 `[batch, heads, permutedLength]`, the mean attention that the first
 * rows behind a segment pay to its keys, by a softmax over the keys of the segment (`sampled_estimate.ts`). Padding scores 0, and
 * so does every key of a segment that has no row behind it, and what a mask hides from them.
 */
export function segmentKeyScores(call: WebGPUCall): TensorInfo {
  return new SegmentKeyScoresProgram(call, chooseScoreTile(call, orderRows)).run(call.backend);
}

interface SegmentVariant extends KeysVariant {
  tile: Tile;
  /** What becomes of scores: no window, which says nothing of how keys of a segment compare for later rows. */
  form: ScoreForm;
  causal: boolean;
  /** Whether a row that stands past the length of its entry is padding. */
  positions: boolean;
}

export class SegmentKeyScoresProgram extends AttentionProgram<SegmentVariant> {
  constructor(call: WebGPUCall, tile: Tile) {
    const {query, key, keyLengths, headForms, mask: maskTensor, geometry, causal} = call;
    const {softCap, slopes, mask} = scoreForm(call);
    const {batch, heads, segmentSize, permutedLength} = geometry;
    super({
      name: 'SegmentKeyScores',
      inputs: {...rowInputs({query, key, ...(slopes && {headForms: headForms!})}), keyLengths, mask: maskTensor},
      outputShape: [batch, heads, permutedLength],
      threads: tileThreads(tile),
      workgroups: batch * heads * (permutedLength / segmentSize),
      call,
      work: evenWork(call.planTimes?.order),
      variant: {
        tile,
        ...keysVariant(call),
        causal,
        positions: rowsHavePositions(geometry, causal),
        form: {causal, softCap, slopes, mask},
      },
    });
  }

  protected shader({tile, form, causal, positions, ...keys}: SegmentVariant): string {
    const {rows, columns, threadsX, threadsY} = tile;
    const position = (c: number) => `(firstKey + offset + ${columnOf(c)})`;
    const inForms =
      form.softCap || form.slopes || form.mask
        ? `\n      ${unroll(
            rows,
            (r) => `{
        ${hooksOfRow(form, 'head', `(firstRow + ${rowOf(r)})`).join('\n        ')}
        ${unroll(columns, (c) => `scores[${r}][${c}] = ${hookedScore(form, `scores[${r}][${c}]`, position(c))};`, '\n        ')}
      }`,
            '\n      ',
          )}`
        : '';
    return `
// A workgroup takes the keys of one segment of one head, and the rows that order them, in tiles of tileQueries. It walks over the
// segment in tiles of tileKeys keys, twice: for the sum of each row, and for the weights, added up by key.
//
// Invocation (x, y) keeps, in registers, maximum and sum of its rows over its own columns; they are combined over x in workgroup
// memory, and so are the weights of its columns over y.
${scoreTile(tile, keys)}${hookFunctions(form)}${logOfSum}
// Maximum and sum of a row in an x.
var<workgroup> partials : array<vec2<f32>, ${tileQueries(tile) * threadsX}>;
var<workgroup> columnPartials : array<f32, ${tileKeys(tile) * threadsY}>;

fn main(index : i32) {
${invocationPlace(tile)}
  let permutedLength = uniforms.permutedLength;
  let segments = permutedLength / uniforms.segmentSize;
  let segment = workgroupIndex() % segments;
  let head = workgroupIndex() / segments;
  let exists = head < uniforms.batch * uniforms.heads;
  let firstKey = segment * uniforms.segmentSize;
  let length = keyEnd(min(head, uniforms.batch * uniforms.heads - 1));
  let endKey = select(0, min(firstKey + uniforms.segmentSize, length), exists);
  let lastRow = ${positions ? 'clamp(length - uniforms.queryOffset, 0, uniforms.queryLength)' : 'uniforms.queryLength'};
  let wanted = ${causal ? 'max(0, firstKey + uniforms.segmentSize - uniforms.queryOffset)' : `max(0, lastRow - ${orderRows})`};
  let firstOrderRow = min(wanted, lastRow);
  let endOrderRow = min(wanted + ${orderRows}, lastRow);

  // All workgroups take the same number of rounds, as barriers demand; past the last row or key a tile is empty.
  for (var rowTile = 0; rowTile < ${orderRows}; rowTile += tileQueries) {
    let firstRow = firstOrderRow + rowTile;
    loadQueryTile(head, firstRow, select(0, endOrderRow, exists));
    ${emptyRows(tile)}
    for (var offset = 0; offset < uniforms.segmentSize; offset += tileKeys) {
      loadKeyTile(head, firstKey + offset, endKey);
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      var scores = tileScores(x, y);${inForms}
      ${unroll(
        columns,
        (c) => `if (firstKey + offset + ${columnOf(c)} >= endKey) {
        ${unroll(rows, (r) => `scores[${r}][${c}] = masked;`, ' ')}
      }`,
        '\n      ',
      )}
      ${addScores(tile)}
      // Barrier: the next round overwrites the keys.
      workgroupBarrier();
    }
    ${unroll(rows, (r) => `partials[(${rowOf(r)}) * threadsX + x] = vec2<f32>(rowMax[${r}], rowSum[${r}]);`)}
    // Barrier: the sum of a row needs the parts of all x.
    workgroupBarrier();
    var logSum : vec${rows}<f32>;
    ${unroll(
      rows,
      (r) => `{
      let first = (${rowOf(r)}) * threadsX;
      ${mergeParts('threadsX', 'partials[first + i].x', 'partials[first + i].y')}
      logSum[${r}] = ${form.mask ? 'select(total + logOfSum(sum), lowest, sum == 0.0)' : 'total + logOfSum(sum)'};
    }`,
    )}

    for (var offset = 0; offset < uniforms.segmentSize; offset += tileKeys) {
      loadKeyTile(head, firstKey + offset, endKey);
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      ${inForms ? 'var' : 'let'} scores = tileScores(x, y);${inForms}
      ${unroll(
        columns,
        (c) => `{
        var sum = 0.0;
        ${unroll(rows, (r) => `sum += select(0.0, exp2(scores[${r}][${c}] - logSum[${r}]), firstRow + ${rowOf(r)} < endOrderRow);`, '\n        ')}
        columnPartials[y * tileKeys + ${columnOf(c)}] = sum;
      }`,
        '\n      ',
      )}
      // Barrier: a key's score needs the parts of all y; and no key is read any more.
      workgroupBarrier();
      for (var slot = local; slot < tileKeys; slot += threads) {
        var sum = 0.0;
        for (var i = 0; i < threadsY; i++) {
          sum += columnPartials[i * tileKeys + slot];
        }
        if (exists && offset + slot < uniforms.segmentSize) {
          let at = head * permutedLength + firstKey + offset + slot;
          let mean = select(0.0, sum / f32(max(1, endOrderRow - firstOrderRow)), firstKey + offset + slot < endKey);
          result[at] = mean${tileQueries(tile) < orderRows ? ' + select(0.0, result[at], rowTile > 0)' : ''};
        }
      }
    }
    // Barrier: the next rows replace these, and their parts.
    workgroupBarrier();
  }
}`;
  }
}
