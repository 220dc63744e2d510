import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {AttendForm, BlockPlan} from './attend_walk.js';
import {attendForm, countQueryTiles, maskStart, ownedRows, walkOverKeys, withMask} from './attend_walk.js';
import {statisticsValues} from './gradient_statistics.js';
import type {GradientTile} from './gradient_tile.js';
import {
  addProducts,
  addWeighted,
  gradientThreads,
  gradientTile,
  headChunks,
  maskedConstant,
  tilePlace,
  tileRows,
  weightsMemory,
  writeSums,
} from './gradient_tile.js';
import {AttentionProgram, keyRow, readRow, rowComponents, workgroupIndex, writeRow} from './program.js';

/**
 * Stage 2 of the gradients, gradient query: float32, shaped as query. A score moves the output by its weight times what
 * its value differs from the mean: d score = weight · (dy · value − delta), d query = scale · Σ d score · key.
 */
export class GradientQueryProgram extends AttentionProgram<{tile: GradientTile; form: AttendForm}> {
  constructor(
    query: TensorInfo,
    key: TensorInfo,
    value: TensorInfo,
    dy: TensorInfo,
    statistics: TensorInfo,
    geometry: BlockGeometry,
    tile: GradientTile,
    scale: number,
    causal: boolean,
    plan?: BlockPlan,
    mask?: TensorInfo,
  ) {
    const {batch, heads, queryOffset, headDim, valueDim, blockSize} = geometry;
    const components = rowComponents(headDim);
    const valueComponents = rowComponents(valueDim);
    // Key lengths are in the statistics: with them as an input there would be more buffers than every device has.
    const form = attendForm(geometry, causal, plan, {mask});
    const queryTiles = countQueryTiles(geometry, form, tileRows(tile));
    super({
      inputs: {
        query: {tensor: query, components},
        key: {tensor: key, components},
        value: {tensor: value, components: valueComponents},
        dy: {tensor: dy, components: valueComponents},
        statistics: {tensor: statistics, components: 1},
        ...(plan && {
          keyIndices: {tensor: plan.keyIndices, components: 1},
          blockLists: {tensor: plan.blockLists, components: 1},
        }),
        ...(mask && {mask: {tensor: mask, components: 1}}),
      },
      outputShape: query.shape,
      outputType: 'float32',
      outputComponents: components,
      threads: gradientThreads,
      workgroups: batch * heads * queryTiles,
      uniforms: {
        scale: {type: 'f32', value: scale},
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        queryTiles: {type: 'i32', value: queryTiles},
        ...(form.offset && {queryOffset: {type: 'i32', value: queryOffset}}),
        ...(plan && {blockSize: {type: 'i32', value: blockSize}}),
      },
      variant: {tile, form},
    });
  }

  protected shader({tile, form}: {tile: GradientTile; form: AttendForm}): string {
    const {rows} = tile;
    const {headDim, valueDim, sparse, mask} = form;
    return `
// A workgroup computes the gradients of tileQueries query rows of one head. It walks over tiles of tileKeys keys${
      sparse ? ' of the\n// blocks in its list' : ''
    }: scores again, gradients of the weights, then the gradients of the scores times the keys.
//
// Invocation (x, y) computes the scores of rows y + r * 8 with columns x + c * 8, and keeps, in registers, the sums of its
// rows for the vectors x + 8 * chunk of the head.
//
// Workgroup memory: ownedChunk and walkedChunk, 8 vectors of the query rows and of the keys at a time, for scores; of
// the rows' dy and of the values, for gradients of weights; at last of the keys again. weights, the gradients of the scores, of a row in the columns of an x.
${gradientTile(tile, headDim, valueDim)}
${weightsMemory(tile)}
${readRow('readQuery', 'query', headDim)}
${readRow('readKey', 'key', headDim)}
${readRow('readValue', 'value', valueDim)}
${readRow('readDy', 'dy', valueDim)}
${writeRow('writeGradient', headDim)}
${workgroupIndex}
${keyRow}
${mask ? maskedConstant : ''}
${walkOverKeys(form)}

fn main(index : i32) {
${tilePlace}
${ownedRows(form)}
  if (localIndex == 0u) {
    roundCount = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  }
  let keyTiles = workgroupUniformLoad(&roundCount);
  let firstQueryRow = head * uniforms.queryShape.z;
  if (i32(localIndex) < tileQueries) {
    let row = firstRow + i32(localIndex);
    ownedRows[localIndex] = select(-1, firstQueryRow + row, row < endRow);
  }
  var logSum = vec${rows}<f32>(0.0);
  var delta = vec${rows}<f32>(0.0);
  // Last position that a row may see.
  var lastSeen = vec${rows}<f32>(-1.0);
  ${each(
    rows,
    (r) => `{
    let row = firstRow + y + ${8 * r};
    if (row < endRow) {
      let at = ${statisticsValues} * (firstQueryRow + row);
      logSum[${r}] = statistics[at];
      delta[${r}] = statistics[at + 1];
      lastSeen[${r}] = statistics[at + 2];
    }
  }`,
  )}

  var gradient = array<array<vec4<f32>, ${headChunks(headDim)}>, rows>();
  for (var t = 0; t < keyTiles; t++) {
    // 1. Which keys.
    let slots = keySlots(head, queryTileIndex, t, keyTiles);
    if (i32(localIndex) < tileKeys) {
      let position = positionIn(head, slots, i32(localIndex));
      walkedRows[localIndex] = select(firstKeyRow + position, -1, position == nowhere);
    }
    // Barrier: chunks are loaded by rows that others wrote.
    workgroupBarrier();

    // 2. Scores, and gradients of the weights. The initial values are needed: without them the last round's stay.
    var scores = array<array<f32, rows>, rows>();
    ${addProducts(tile, 'head', 'scores', 'readQuery', 'readKey')}
    var products = array<array<f32, rows>, rows>();
    ${addProducts(tile, 'value', 'products', 'readDy', 'readValue')}

    // 3. Gradients of the scores: none where a row does not see a key.
    ${each(rows, (c) => `let position${c} = select(nowhere, walkedRows[x + ${8 * c}] - firstKeyRow, walkedRows[x + ${8 * c}] >= 0);`)}
    ${each(
      rows,
      (r) => `{
      let last = i32(lastSeen[${r}]);${
        mask
          ? `
      let maskStart = ${maskStart(form, `firstRow + y + ${8 * r}`)};`
          : ''
      }
      ${each(
        rows,
        (c) => `scores[${r}][${c}] = select(
        0.0,
        exp2(${withMask(form, `uniforms.logitScale * scores[${r}][${c}]`, `position${c}`)} - logSum[${r}]) * (products[${r}][${c}] - delta[${r}]),
        position${c} <= last);`,
        '\n      ',
      )}
    }`,
    )}

    // 4. Times the keys.
    ${addWeighted(tile, 'head', headDim, 'gradient', 'readKey', (r, c) => `scores[${r}][${c}]`)}
  }

  ${writeSums(
    tile,
    headDim,
    (r, vector, chunk) =>
      `if (firstRow + y + ${8 * r} < endRow) { writeGradient(firstQueryRow + firstRow + y + ${8 * r}, ${vector}, uniforms.scale * gradient[${r}][${chunk}]); }`,
  )}
}`;
  }
}
