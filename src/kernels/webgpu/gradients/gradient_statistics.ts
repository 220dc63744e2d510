import {unroll} from '../../unroll.js';
import type {AttendForm} from '../attend/attend_walk.js';
import {attendForm, lastVisible, maskStart, walkOverKeys, walkSpec, withMask} from '../attend/attend_walk.js';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUGradientCall, WebGPUPlan} from '../webgpu_call.js';
import {headVectors, keyRow, readRow, rowInput, workgroupIndexInLaunch} from '../wgsl/rows.js';
import {noScores} from '../wgsl/softmax_state.js';
import {invocationPlace, tileThreads} from '../wgsl/tile.js';
import {keysAhead, ownedQueries, visitedKey, walkedPosition} from './gradient_rows.js';
import type {GradientTile} from './gradient_tile.js';
import {ownedCount} from './gradient_tile.js';
import {GradientWalk} from './gradient_walk.js';

/** Values of a query row in the statistics of the gradients. */
const statisticsValues = 4;

/**
 * Stage 1 of the gradients, gradient statistics: float32 `[batch, heads, queryLength, 4]`. The logarithm to the base 2 of the
 * sum of exp2(score) over the keys that a query row sees; the product of its output and its gradient; the last position that
 * the row may see, by a causal mask and by key lengths, or −1 if it sees no key, and then the logarithm is 0; and the end of the
 * keys that are not padding. So no later stage asks again.
 */
export class GradientStatisticsProgram extends AttentionProgram<{tile: GradientTile; form: AttendForm}> {
  constructor(call: WebGPUGradientCall, tile: GradientTile, plan?: WebGPUPlan) {
    const {query, key, output, dy, geometry} = call;
    const {batch, heads, queryLength} = geometry;
    const form = attendForm(call, plan);
    const {inputs, ...walk} = walkSpec(call, form, {tileQueries: ownedCount(tile), plan});
    super({
      name: 'GradientStatistics',
      ...walk,
      inputs: {query: rowInput(query), key: rowInput(key), output: rowInput(output), dy: rowInput(dy), ...inputs},
      outputShape: [batch, heads, queryLength, statisticsValues],
      threads: tileThreads(tile),
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
${workgroupIndexInLaunch}
${keyRow}
${walkOverKeys(form)}
${visitedKey()}

fn main(index : i32) {
${invocationPlace(tile)}
${ownedQueries(form)}

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
      rowSum[${r}] = fma(rowSum[${r}], exp2(rowMax[${r}] - newMax), ${unroll(columns, (c) => `exp2(scores[${r}][${c}] - newMax)`, ' + ')});
      rowMax[${r}] = newMax;
    }`,
    )}`;
}
