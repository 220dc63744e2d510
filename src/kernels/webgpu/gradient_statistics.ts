import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {BlockPlan} from './attend_walk.js';
import {ownedRows, walkOverKeys} from './attend_walk.js';
import type {GradientTile} from './gradient_tile.js';
import {addProducts, gradientThreads, gradientTile, tilePlace, tileRows} from './gradient_tile.js';
import {AttentionProgram, keyRow, readRow, rowComponents, workgroupIndex} from './program.js';

interface GradientVariant {
  tile: GradientTile;
  headDim: number;
  valueDim: number;
  causal: boolean;
  /** Whether a plan names the keys, or all of them count. */
  sparse: boolean;
}

/**
 * Stage 1 of the gradients, gradient statistics: float32 `[batch, heads, queryLength, 2]`. The logarithm to the base 2 of the
 * sum of exp2(score) over the keys that a query row sees (0 if it sees none), and the product of its output and its
 * gradient.
 */
export class GradientStatisticsProgram extends AttentionProgram<GradientVariant> {
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
  ) {
    const {batch, heads, queryLength, queryOffset, headDim, valueDim, blockSize, queryBlocks} = geometry;
    const components = rowComponents(headDim);
    const valueComponents = rowComponents(valueDim);
    const queryTiles = plan
      ? queryBlocks * Math.ceil(blockSize / tileRows(tile))
      : Math.ceil(queryLength / tileRows(tile));
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
      },
      outputShape: [batch, heads, queryLength, 2],
      outputType: 'float32',
      threads: gradientThreads,
      workgroups: batch * heads * queryTiles,
      uniforms: {
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        queryTiles: {type: 'i32', value: queryTiles},
        queryOffset: {type: 'i32', value: queryOffset},
        ...(plan && {blockSize: {type: 'i32', value: blockSize}}),
      },
      variant: {tile, headDim, valueDim, causal, sparse: plan !== undefined},
    });
  }

  protected shader({tile, headDim, valueDim, causal, sparse}: GradientVariant): string {
    const {rows} = tile;
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
${walkOverKeys(sparse, causal)}

fn main(index : i32) {
${tilePlace}
${ownedRows}
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
      let lastVisible = ${causal ? `uniforms.queryOffset + firstRow + y + ${8 * r}` : 'nowhere'};
      for (var c = 0; c < rows; c++) {
        let keyRow = walkedRows[x + c * 8];
        if (keyRow >= 0 && keyRow - firstKeyRow <= lastVisible) {
          let score = uniforms.logitScale * scores[${r}][c];
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
    let at = 2 * (firstQueryRow + firstRow + row);
    result[at] = select(total + log2(sum), 0.0, sum == 0.0);
    result[at + 1] = product;
  }
}`;
  }
}
