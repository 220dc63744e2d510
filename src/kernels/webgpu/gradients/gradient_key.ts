import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {unroll} from '../../unroll.js';
import type {AttendForm} from '../attend/attend_form.js';
import {blockUniforms, expectedWork} from '../attend/attend_form.js';
import {AttentionProgram, i32} from '../runtime/program.js';
import type {JoinedPlan, WebGPUGradientCall} from '../webgpu_call.js';
import {keyRow, rowComponents, rowInputs, workgroupIndex, writeRow} from '../wgsl/rows.js';
import type {ScoreForm} from '../wgsl/score_hooks.js';
import {
  derivativeFunctions,
  hookedScore,
  hookFunctions,
  hooksOfRow,
  scoreDerivative,
  scoreForm,
} from '../wgsl/score_hooks.js';
import {noScores} from '../wgsl/softmax_state.js';
import {columnOf, invocationPlace, rowOf, tileThreads} from '../wgsl/tile.js';
import {noStatistics} from './gradient_rows.js';
import type {GradientTile} from './gradient_tile.js';
import {ownedCount} from './gradient_tile.js';
import type {Ahead} from './gradient_passes.js';
import {GradientWalk} from './gradient_walk.js';
import {queryTiles} from './query_tiles.js';

/** `sparse` is whether a plan names the queries. */
interface GradientVariant extends Pick<AttendForm, 'headDim' | 'valueDim' | 'sparse'>, ScoreForm {
  tile: GradientTile;
}

/** Four products of rows where the forward pass has two, and what is between them. */
const timesForward = 2.4;

/** Heads that have gradients of their own: see `GradientKeyProgram`. */
export const ownerHeads = ({batch, heads, keyValueHeads}: BlockGeometry, sparse: boolean) =>
  batch * (sparse ? heads : keyValueHeads);

/**
 * Stage 3 of the gradients, gradient key: float32, first the gradients of the keys, `[owners, keyLength, headDim]`, then
 * those of the values, `[owners, keyLength, valueDim]`. Sums over all query rows that see a key: d value = Σ weight · dy,
 * d key = scale · Σ d score · query.
 *
 * An owner is a key/value head, whose workgroups walk over the queries of all heads that share it; or, with a plan, a
 * query head, since each has an order of its own, and the heads of a group are added up by the next stage. Either way each
 * key has one workgroup that writes it, where the key stands, and nothing is added atomically.
 */
export class GradientKeyProgram extends AttentionProgram<GradientVariant> {
  /** @param plan keys in permuted order, and for each block of them the query blocks that attend to it (see `query_lists.ts`). */
  constructor(call: WebGPUGradientCall, tile: GradientTile, statistics: TensorInfo, plan?: JoinedPlan) {
    const {query, key, value, dy, geometry, causal, mask} = call;
    const {keyLength, headDim, valueDim, keyBlockSize, keyBlocks} = geometry;
    const sparse = plan !== undefined;
    const size = ownedCount(tile);
    const keyTiles = sparse
      ? keyBlocks * Math.ceil(Math.min(keyBlockSize, keyLength) / size)
      : Math.ceil(keyLength / size);
    const owners = ownerHeads(geometry, sparse);
    super({
      name: 'GradientKey',
      inputs: {...rowInputs({query, key, value, dy, statistics}), ...plan, mask},
      outputShape: [owners * keyLength * (headDim + valueDim)],
      outputComponents: bothComponents(headDim, valueDim),
      threads: tileThreads(tile),
      workgroups: owners * keyTiles,
      work: expectedWork(call, sparse, timesForward),
      call,
      uniforms: {owners: i32(owners), ...blockUniforms(geometry)},
      variant: {
        ...{tile, headDim, valueDim, causal, sparse},
        ...scoreForm(call),
      },
    });
  }

  protected shader({tile, headDim, valueDim, sparse, ...form}: GradientVariant): string {
    const {causal, mask, window} = form;
    // Scores with queries, weights and values with dy, which serves twice in turn, then queries again.
    const walk = new GradientWalk(
      tile,
      {headDim, valueDim},
      [
        {owned: 'key', walked: 'query', sums: 'scores', then: weightsOfScores(tile, form)},
        {walked: 'dy', sums: 'valueGradient', weights: 'scores'},
        {owned: 'value', walked: 'dy', sums: 'products', then: scoreGradients(tile, form)},
        {walked: 'query', sums: 'keyGradient', weights: 'products'},
      ],
      queriesAhead(form),
    );
    const components = bothComponents(headDim, valueDim);
    return `
// A workgroup computes the gradients of tileKeys keys and of their values, of one owner. It walks over tiles of
// tileQueries query rows${sparse ? ' of the blocks in its list' : ' of all heads that share the keys'}: scores again, their weights times dy; gradients of the weights, the
// gradients of the scores times the queries.
//
// Invocation (x, y) computes the scores of keys y + r * threadsY with query rows x + c * threadsX, and keeps, in registers,
// both sums of its keys for the vectors x + o * threadsX of the head.
//
// Workgroup memory: the keys and values, for the whole run or by chunks (ownedTile); walkedTile, the query rows, their dy, then
// the query rows again; walkedStatistics; weights, of a key in the query rows of an x: first those of attention, then the
// gradients of the scores. Global memory is read ahead into registers: what the next step needs while this one computes, and
// where the rows of the next round but one stand.
${workgroupIndex}
${keyRow}
${walk.declarations()}
${noStatistics}
// Rounds of the workgroup's walk: its barriers need a number that all invocations are known to share.
var<workgroup> roundCount : i32;
${writeRow('writeKeyGradient', headDim, {components})}
${writeRow('writeValueGradient', valueDim, {components, first: `uniforms.owners * uniforms.keyLength * ${headDim}`})}

${mask || window ? noScores : ''}${hookFunctions(form)}${derivativeFunctions(form)}
${queryTiles(sparse, {causal, window})}

fn main(index : i32) {
${invocationPlace(tile)}
  let length = uniforms.queryLength;
  let owners = uniforms.owners;
  let owner = workgroupIndex() % owners;
  // First keys first: under a causal mask they have most queries, and a long workgroup should not start last. Workgroups
  // beyond those asked for find no keys.
  let keyTile = workgroupIndex() / owners;
  let slots = ownedSpan(keyTile);
  // Query head that shares the keys, the first of them.
  let firstHead = owner * (uniforms.batch * uniforms.heads / owners);
  let firstKeyRow = keyRow(firstHead, 0);
  if (local == 0) {
    roundCount = select(0, ${sparse ? 'countListed(owner, keyTile)' : 'countQueryTiles(slots.x)'}, slots.x < slots.y);
  }
  if (local < tileKeys) {
    var row = -1;
    if (slots.x + local < slots.y) {
      row = firstKeyRow + keyPosition(owner, slots.x + local);
    }
    ownedRows[local] = row;
  }
  let queryTiles = workgroupUniformLoad(&roundCount);

${walk.loop('queryTiles')}

  let firstGradientRow = owner * uniforms.keyLength - firstKeyRow;
  ${walk.writeSums(
    'query',
    'keyGradient',
    (r, vector, sum) =>
      `if (ownedRows[${rowOf(r)}] >= 0) { writeKeyGradient(firstGradientRow + ownedRows[${rowOf(r)}], ${vector}, uniforms.scale * ${sum}); }`,
  )}
  ${walk.writeSums(
    'dy',
    'valueGradient',
    (r, vector, sum) =>
      `if (ownedRows[${rowOf(r)}] >= 0) { writeValueGradient(firstGradientRow + ownedRows[${rowOf(r)}], ${vector}, ${sum}); }`,
  )}
}`;
  }
}

/** The query rows of tile t: [queries.y, queries.z) of head queries.x. */
const queriesAhead = ({slopes}: ScoreForm): Ahead => ({
  statistics: true,
  read: (t) => `aheadRow = -1;
    aheadStatistics = noStatistics;
    if (${t} < queryTiles) {
      let queries = queryRows(owner, firstHead, keyTile, slots.x, ${t});
      if (queries.y + local < queries.z) {
        aheadRow = queries.x * length + queries.y + local;
        aheadStatistics = ${slopes ? 'vec4<f32>(statistics[2 * aheadRow].xyz, statistics[2 * aheadRow + 1].x)' : 'statistics[aheadRow]'};
      }
    }`,
});

/** Makes weights of the scores: none where a row does not see a key. */
function weightsOfScores({rows, columns}: GradientTile, form: ScoreForm): string {
  const derivative = (score: string) => scoreDerivative(form, score);
  // The scores make way for the weights.
  const keepSlopes = form.softCap ? 'var capSlopes = array<array<f32, columns>, rows>();\n    ' : '';
  const weights = unroll(
    columns,
    (c) => `{
      let known = walkedStatistics[now + ${columnOf(c)}];
      let last = i32(known.z);
      let queryRow = max(walkedRows[now + ${columnOf(c)}], 0);
      ${hooksOfRow(form, 'queryRow / length', 'queryRow % length', 'known.w').join('\n      ')}
      ${unroll(
        rows,
        (r) => `{
        let row = ownedRows[${rowOf(r)}];
        let score = ${hookedScore(form, `uniforms.logitScale * scores[${r}][${c}]`, 'row - firstKeyRow')};${
          form.softCap
            ? `\n        capSlopes[${r}][${c}] = ${derivative(`uniforms.logitScale * scores[${r}][${c}]`)};`
            : ''
        }
        scores[${r}][${c}] = select(exp2(score - known.x), 0.0, row < 0 || row - firstKeyRow > last${form.mask || form.window ? ' || score == masked' : ''});
      }`,
        '\n      ',
      )}
    }`,
  );
  return keepSlopes + weights;
}

/**
 * Makes the gradients of the scores of those of the weights. A weight of 0 times a NaN of a row that is not seen is a NaN; a
 * weight that is a NaN equals nothing.
 */
function scoreGradients({rows, columns}: GradientTile, {softCap}: ScoreForm): string {
  return unroll(
    columns,
    (c) => `{
      let delta = walkedStatistics[now + ${columnOf(c)}].y;
      ${unroll(
        rows,
        (r) =>
          `products[${r}][${c}] = select(scores[${r}][${c}] * (products[${r}][${c}] - delta)${softCap ? ` * capSlopes[${r}][${c}]` : ''}, 0.0, scores[${r}][${c}] == 0.0);`,
        '\n      ',
      )}
    }`,
  );
}

/** Components in which rows of both can be written: both kinds start at a vec4, or neither is taken to. */
const bothComponents = (headDim: number, valueDim: number) =>
  rowComponents(headDim) === 4 ? rowComponents(valueDim) : 1;
