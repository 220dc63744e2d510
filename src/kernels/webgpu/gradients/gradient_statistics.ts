import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {unroll} from '../../unroll.js';
import {listed} from '../attend/attend_products.js';
import type {AttendForm, BlockPlan, HiddenKeys} from '../attend/attend_walk.js';
import {
  attendForm,
  blockUniforms,
  countQueryTiles,
  lastVisible,
  maskStart,
  ownedRows,
  walkOverKeys,
  withMask,
} from '../attend/attend_walk.js';
import {keysAhead, visitedKey, walkedPosition} from './gradient_rows.js';
import type {GradientTile} from './gradient_tile.js';
import {ownedCount} from './gradient_tile.js';
import {GradientWalk} from './gradient_walk.js';
import {keyLengthsInput} from '../wgsl/key_lengths.js';
import {AttentionProgram, headVectors, keyRow, readRow, rowComponents, workgroupIndex} from '../runtime/program.js';
import {noScores} from '../wgsl/softmax_state.js';
import {invocationPlace, tileThreads} from '../wgsl/tile.js';

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
    const {batch, heads, queryLength, queryOffset, headDim, valueDim} = geometry;
    const components = rowComponents(headDim);
    const valueComponents = rowComponents(valueDim);
    const form = attendForm(geometry, causal, plan, {keyLengths, mask});
    const queryTiles = countQueryTiles(geometry, form, ownedCount(tile));
    super({
      name: 'GradientStatistics',
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
      threads: tileThreads(tile),
      workgroups: batch * heads * queryTiles,
      uniforms: {
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        queryTiles: {type: 'i32', value: queryTiles},
        ...(plan && blockUniforms(geometry)),
        ...(form.offset && {queryOffset: {type: 'i32', value: queryOffset}}),
      },
      variant: {tile, form},
    });
  }

  protected shader({tile, form}: {tile: GradientTile; form: AttendForm}): string {
    const {rows, threadsX} = tile;
    const {valueDim, causal, sparse, padded} = form;
    const walk = new GradientWalk(
      tile,
      // Nothing of the values passes through workgroup memory.
      {headDim: form.headDim, valueDim: form.headDim},
      'query',
      [{owned: 'query', walked: 'key', sums: 'scores', then: addToSums(tile, form)}],
      keysAhead,
    );
    return `
// A workgroup takes tileQueries query rows of one head and walks over tiles of tileKeys keys${
      sparse ? ' of the blocks in its list' : ''
    }. Invocation (x, y)
// computes the scores of rows y + r * threadsY with columns x + c * threadsX, and keeps, in registers, maximum and sum of its
// rows over its own columns; they are combined over x once at the end, in workgroup memory.
//
// Workgroup memory: the query rows, for the whole run or by chunks (ownedTile); walkedTile, the keys; partials. Global
// memory is read ahead into registers: the next keys while scores are computed, and where the ones after that stand.
${walk.declarations()}
// Maximum, sum, and product of output and gradient, of a row in an x.
var<workgroup> partials : array<vec3<f32>, ${threadsX * ownedCount(tile)}>;
${noScores}
${readRow('readOutput', 'output', valueDim)}
${readRow('readDy', 'dy', valueDim)}
${workgroupIndex}
${keyRow}
${walkOverKeys(form)}
${visitedKey()}

fn main(index : i32) {
${invocationPlace(tile)}
${ownedRows(form)}
  if (local == 0) {
    roundCount = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  }
  let keyTiles = workgroupUniformLoad(&roundCount);
  let firstQueryRow = head * uniforms.queryShape.z;
  if (local < tileQueries) {
    let row = firstRow + local;
    ownedRows[local] = select(-1, firstQueryRow + row, row < endRow);
  }

  var rowMax = vec${rows}<f32>(lowest);
  var rowSum = vec${rows}<f32>(0.0);
${walk.loop(
  'keyTiles',
  `// The initial value is needed: without one the scores of the last round stay.
    var scores = array<array<f32, columns>, rows>();`,
)}

  ${unroll(
    rows,
    (r) => `{
    var product = 0.0;
    let row = firstRow + y + ${r} * threadsY;
    for (var vector = x; vector < ${headVectors(valueDim)} && row < endRow; vector += threadsX) {
      product += dot(readOutput(firstQueryRow + row, vector), readDy(firstQueryRow + row, vector));
    }
    partials[(y + ${r} * threadsY) * threadsX + x] = vec3<f32>(rowMax[${r}], rowSum[${r}], product);
  }`,
  )}
  // Barrier: a row's statistics need the parts of all x.
  workgroupBarrier();
  let row = local;
  if (row < tileQueries && firstRow + row < endRow) {
    var total = lowest;
    for (var i = 0; i < threadsX; i++) {
      total = max(total, partials[row * threadsX + i].x);
    }
    var sum = 0.0;
    var product = 0.0;
    for (var i = 0; i < threadsX; i++) {
      let part = partials[row * threadsX + i];
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

/** Adds the weights of a tile's scores to the sums of an invocation, brought to its new maxima. */
function addToSums({rows, columns}: GradientTile, form: AttendForm): string {
  return `${unroll(columns, (c) => `let position${c} = ${walkedPosition(c)};`)}
    ${unroll(
      rows,
      (r) => `{
      let lastVisible = ${lastVisible(form, `firstRow + y + ${r} * threadsY`)};
      ${form.mask ? `let maskStart = ${maskStart(form, `firstRow + y + ${r} * threadsY`)};\n      ` : ''}var newMax = rowMax[${r}];
      ${unroll(
        columns,
        (
          c,
        ) => `scores[${r}][${c}] = select(${withMask(form, `uniforms.logitScale * scores[${r}][${c}]`, `position${c}`)}, masked, position${c} > lastVisible);
      newMax = max(newMax, scores[${r}][${c}]);`,
        '\n      ',
      )}
      rowSum[${r}] = fma(rowSum[${r}], exp2(rowMax[${r}] - newMax), ${listed(columns, (c) => `exp2(scores[${r}][${c}] - newMax)`, ' + ')});
      rowMax[${r}] = newMax;
    }`,
    )}`;
}
