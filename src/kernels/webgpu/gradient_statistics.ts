import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {AttendForm, BlockPlan, HiddenKeys} from './attend_walk.js';
import {attendForm, countQueryTiles, lastVisible, maskStart, ownedRows, walkOverKeys, withMask} from './attend_walk.js';
import type {GradientTile} from './gradient_tile.js';
import {addProducts, gradientThreads, gradientTile, maskedConstant, tilePlace, tileRows} from './gradient_tile.js';
import {keyLengthsInput} from './key_lengths.js';
import {AttentionProgram, keyRow, readRow, rowComponents, workgroupIndex} from './program.js';

/** Values of a query row in the statistics of the gradients. */
export const statisticsValues = 4;

/**
 * Stage 1 of the gradients, gradient statistics: float32 `[batch, heads, queryLength, 4]`. The logarithm to the base 2 of the
 * sum of exp2(score) over the keys that a query row sees; the product of its output and its gradient; the last position that
 * the row may see, by a causal mask and by key lengths, or −1 if it sees no key, and then the logarithm is 0; and the end of the
 * keys that are not padding. So no later stage asks again.
 */
export class GradientStatisticsProgram extends AttentionProgram<{tile: GradientTile; form: AttendForm}> {
  constructor(
    query: TensorInfo,
    key: TensorInfo,
    output: TensorInfo,
    dy: TensorInfo,
    geometry: BlockGeometry,
    tile: GradientTile,
    scale: number,
    causal: boolean,
    plan?: BlockPlan,
    {keyLengths, mask}: HiddenKeys = {},
  ) {
    const {batch, heads, queryLength, queryOffset, headDim, valueDim, blockSize} = geometry;
    const components = rowComponents(headDim);
    const valueComponents = rowComponents(valueDim);
    const form = attendForm(geometry, causal, plan, {keyLengths, mask});
    const queryTiles = countQueryTiles(geometry, form, tileRows(tile));
    super({
      inputs: {
        query: {tensor: query, components},
        key: {tensor: key, components},
        output: {tensor: output, components: valueComponents},
        dy: {tensor: dy, components: valueComponents},
        ...(plan && {
          keyIndices: {tensor: plan.keyIndices, components: 1},
          blockLists: {tensor: plan.blockLists, components: 1},
        }),
        ...keyLengthsInput(keyLengths),
        ...(mask && {mask: {tensor: mask, components: 1}}),
      },
      outputShape: [batch, heads, queryLength, statisticsValues],
      outputType: 'float32',
      threads: gradientThreads,
      workgroups: batch * heads * queryTiles,
      uniforms: {
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        queryTiles: {type: 'i32', value: queryTiles},
        ...(plan && {blockSize: {type: 'i32', value: blockSize}}),
        ...(form.offset && {queryOffset: {type: 'i32', value: queryOffset}}),
      },
      variant: {tile, form},
    });
  }

  protected shader({tile, form}: {tile: GradientTile; form: AttendForm}): string {
    const {rows} = tile;
    const {headDim, valueDim, causal, sparse, padded, mask} = form;
    return `
// A workgroup takes tileQueries query rows of one head and walks over tiles of tileKeys keys${
      sparse ? ' of the blocks in its list' : ''
    }. Invocation (x, y)
// keeps, in registers, maximum and sum of its rows over its own columns; they are combined over x once at the end, in
// workgroup memory.
${gradientTile(tile, headDim, valueDim)}
// Maximum, sum, and product of output and gradient, of a row in an x.
var<workgroup> partials : array<vec3<f32>, ${8 * tileRows(tile)}>;
// Where a maximum starts; finite, because WGSL need not support infinities.
const lowest = -1e38f;
${readRow('readQuery', 'query', headDim)}
${readRow('readKey', 'key', headDim)}
${readRow('readOutput', 'output', valueDim)}
${readRow('readDy', 'dy', valueDim)}
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

  var rowMax = vec${rows}<f32>(lowest);
  var rowSum = vec${rows}<f32>(0.0);
  for (var t = 0; t < keyTiles; t++) {
    let slots = keySlots(head, queryTileIndex, t, keyTiles);
    if (i32(localIndex) < tileKeys) {
      let position = positionIn(head, slots, i32(localIndex));
      walkedRows[localIndex] = select(firstKeyRow + position, -1, position == nowhere);
    }
    // Barrier: chunks are loaded by rows that others wrote.
    workgroupBarrier();
    // The initial value is needed: without one the scores of the last round stay.
    var scores = array<array<f32, rows>, rows>();
    ${addProducts(tile, 'head', 'scores', 'readQuery', 'readKey')}
    ${each(
      rows,
      (r) => `{
      let lastVisible = ${lastVisible(form, `firstRow + y + ${8 * r}`)};${
        mask
          ? `
      let maskStart = ${maskStart(form, `firstRow + y + ${8 * r}`)};`
          : ''
      }
      for (var c = 0; c < rows; c++) {
        let keyRow = walkedRows[x + c * 8];
        if (keyRow >= 0 && keyRow - firstKeyRow <= lastVisible) {
          let score = ${withMask(form, `uniforms.logitScale * scores[${r}][c]`, 'keyRow - firstKeyRow')};
          let newMax = max(rowMax[${r}], score);
          rowSum[${r}] = rowSum[${r}] * exp2(rowMax[${r}] - newMax) + exp2(score - newMax);
          rowMax[${r}] = newMax;
        }
      }
    }`,
    )}
    // Barrier: the next round overwrites the rows.
    workgroupBarrier();
  }

  ${each(
    rows,
    (r) => `{
    var product = 0.0;
    let row = firstRow + y + ${8 * r};
    for (var vector = x; vector < valueVectors && row < endRow; vector += 8) {
      product += dot(readOutput(firstQueryRow + row, vector), readDy(firstQueryRow + row, vector));
    }
    partials[(y + ${8 * r}) * 8 + x] = vec3<f32>(rowMax[${r}], rowSum[${r}], product);
  }`,
  )}
  // Barrier: a row's statistics need the parts of all x.
  workgroupBarrier();
  let row = i32(localIndex);
  if (row < tileQueries && firstRow + row < endRow) {
    var total = lowest;
    for (var i = 0; i < 8; i++) {
      total = max(total, partials[row * 8 + i].x);
    }
    var sum = 0.0;
    var product = 0.0;
    for (var i = 0; i < 8; i++) {
      let part = partials[row * 8 + i];
      sum += part.y * exp2(part.x - total);
      product += part.z;
    }
    let at = ${statisticsValues} * (firstQueryRow + firstRow + row);
    result[at] = select(total + log2(sum), 0.0, sum == 0.0);
    result[at + 1] = product;
    let end = ${padded ? 'keyEnd(head)' : 'uniforms.keyShape.z'};
    var last = end - 1;
    ${causal ? `last = min(last, ${lastVisible(form, 'firstRow + row')});` : ''}
    result[at + 2] = select(f32(last), -1.0, sum == 0.0);
    result[at + 3] = f32(end);
  }
}`;
  }
}
