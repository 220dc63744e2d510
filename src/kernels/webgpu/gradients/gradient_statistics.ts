import {unroll} from '../../unroll.js';
import type {AttendForm} from '../attend/attend_form.js';
import {attendForm, walkSpec} from '../attend/attend_form.js';
import {lastVisible, scoresOfProducts, walkOverKeys} from '../attend/attend_walk.js';
import {AttentionProgram} from '../runtime/program.js';
import type {JoinedPlan, WebGPUGradientCall} from '../webgpu_call.js';
import {logOfSum} from '../wgsl/not_finite.js';
import {headVectors, readRow, rowInputs} from '../wgsl/rows.js';
import type {ScoreForm} from '../wgsl/score_hooks.js';
import {addScores, emptyRows, mergeParts} from '../wgsl/softmax_state.js';
import {invocationPlace, rowOf, tileThreads} from '../wgsl/tile.js';
import {keysAhead, ownedQueries, visitedKey, walkedPosition} from './gradient_rows.js';
import type {GradientTile} from './gradient_tile.js';
import {ownedCount} from './gradient_tile.js';
import {GradientWalk} from './gradient_walk.js';

/** One product of rows where the forward pass has two, and what comes after. */
const timesForward = 0.6;

/** Statements: the logarithm with a sink, however heavy. */
const withSink = `let sink = headForms[head].z;
    let top = max(total, sink);
    let logSum = top + log2(sum * exp2(total - top) + exp2(sink - top));
    `;

interface StatisticsVariant {
  tile: GradientTile;
  form: AttendForm;
  /** Whether there is a gradient by the logarithms: less it, products of output and gradient stay what scores differ from. */
  byLogSumExp?: true;
}

/** Values of a query row in the statistics of the gradients. */
export const statisticsValues = ({slopes}: Pick<ScoreForm, 'slopes'>) => (slopes ? 8 : 4);

/**
 * Stage 1 of the gradients, gradient statistics: float32 `[batch, heads, queryLength, 4]`. The logarithm to the base 2 of the
 * sum of exp2(score) over the keys that a query row sees; the product of its output and its gradient; the last position that
 * the row may see, by a causal mask and by key lengths, or −1 if it sees no key, and then the logarithm is 0; and the end of the
 * keys that are not padding. With slopes four values more, of which the first is the row's slope. So no later stage asks again.
 */
export class GradientStatisticsProgram extends AttentionProgram<StatisticsVariant> {
  constructor(call: WebGPUGradientCall, tile: GradientTile, plan?: JoinedPlan) {
    const {query, key, output, dy, dLogSumExp, geometry} = call;
    const {batch, heads, queryLength} = geometry;
    const form = attendForm(call, plan);
    const {inputs, ...walk} = walkSpec(call, form, {tileQueries: ownedCount(tile), plan, timesForward});
    super({
      name: 'GradientStatistics',
      ...walk,
      inputs: {...rowInputs({query, key, output, dy}), ...inputs, dLogSumExp},
      outputShape: [batch, heads, queryLength, statisticsValues(form)],
      threads: tileThreads(tile),
      variant: {tile, form, ...(dLogSumExp && {byLogSumExp: true})},
    });
  }

  protected shader({tile, form, byLogSumExp}: StatisticsVariant): string {
    const {rows, threadsX} = tile;
    const {valueDim, causal, sparse} = form;
    const walk = new GradientWalk(
      tile,
      // Nothing of the values passes through workgroup memory.
      {headDim: form.headDim, valueDim: form.headDim},
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
${readRow('readOutput', 'output', valueDim)}
${readRow('readDy', 'dy', valueDim)}
${walkOverKeys(form)}${logOfSum}
${visitedKey()}

fn main(index : i32) {
${invocationPlace(tile)}
${ownedQueries(form)}

  ${emptyRows(tile)}
${walk.loop('keyTiles')}

  ${unroll(
    rows,
    (r) => `{
    var product = 0.0;
    let row = firstRow + ${rowOf(r)};
    for (var vector = x; vector < ${headVectors(valueDim)} && row < endRow; vector += threadsX) {
      product += dot(readOutput(firstQueryRow + row, vector), readDy(firstQueryRow + row, vector));
    }
    partials[(${rowOf(r)}) * threadsX + x] = vec3<f32>(rowMax[${r}], rowSum[${r}], product);
  }`,
  )}
  // Barrier: a row's statistics need the parts of all x.
  workgroupBarrier();
  let row = local;
  if (row < tileQueries && firstRow + row < endRow) {
    ${mergeParts('threadsX', 'partials[row * threadsX + i].x', 'partials[row * threadsX + i].y')}
    var product = 0.0;
    for (var i = 0; i < threadsX; i++) {
      product += partials[row * threadsX + i].z;
    }
    let at = ${statisticsValues(form)} * (firstQueryRow + firstRow + row);
    ${form.sinks ? withSink : ''}result[at] = select(${form.sinks ? 'logSum' : 'total + logOfSum(sum)'}, 0.0, sum == 0.0);
    result[at + 1] = product${byLogSumExp ? ' - dLogSumExp[firstQueryRow + firstRow + row]' : ''};
    let end = keyEnd(head);
    var last = end - 1;
    ${causal || form.window ? `last = min(last, ${lastVisible(form, 'firstRow + row')});` : ''}
    result[at + 2] = select(f32(last), -1.0, sum == 0.0);
    result[at + 3] = f32(end);${form.slopes ? '\n    result[at + 4] = headForms[head].y;' : ''}
  }
}`;
  }
}

/** Adds the scores of a tile to the states of this invocation's rows. */
function addToSums(tile: GradientTile, form: AttendForm): string {
  return `${unroll(tile.columns, (c) => `let position${c} = ${walkedPosition(c)};`)}
    ${scoresOfProducts(form, tile, (product) => `uniforms.logitScale * ${product}`)}
    ${addScores(tile)}`;
}
