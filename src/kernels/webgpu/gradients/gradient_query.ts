import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {unroll} from '../../unroll.js';
import type {AttendForm, BlockPlan, HiddenKeys} from '../attend/attend_walk.js';
import {
  attendForm,
  blockUniforms,
  countQueryTiles,
  maskStart,
  ownedRows,
  walkOverKeys,
  withMask,
} from '../attend/attend_walk.js';
import {keysAhead, noStatistics, visitedKey, walkedPosition} from './gradient_rows.js';
import type {GradientTile} from './gradient_tile.js';
import {ownedCount} from './gradient_tile.js';
import {GradientWalk} from './gradient_walk.js';
import {AttentionProgram, keyRow, rowComponents, workgroupIndex, writeRow} from '../runtime/program.js';
import {noScores} from '../wgsl/softmax_state.js';
import {invocationPlace, tileThreads} from '../wgsl/tile.js';

interface QueryVariant {
  tile: GradientTile;
  form: AttendForm;
  /** Whether there are key lengths. */
  padded: boolean;
}

/**
 * Stage 2 of the gradients, gradient query: float32, shaped as query. A score moves the output by its weight times what
 * its value differs from the mean: d score = weight · (dy · value − delta), d query = scale · Σ d score · key.
 */
export class GradientQueryProgram extends AttentionProgram<QueryVariant> {
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
    {keyLengths, mask}: HiddenKeys = {},
  ) {
    const {batch, heads, queryOffset, headDim, valueDim} = geometry;
    const components = rowComponents(headDim);
    const valueComponents = rowComponents(valueDim);
    // Key lengths are in the statistics: with them as an input there would be more buffers than every device has.
    const padded = keyLengths !== undefined;
    const form = attendForm(geometry, causal, plan, {mask});
    const queryTiles = countQueryTiles(geometry, form, ownedCount(tile));
    super({
      name: 'GradientQuery',
      inputs: {
        query: {tensor: query, components},
        key: {tensor: key, components},
        value: {tensor: value, components: valueComponents},
        dy: {tensor: dy, components: valueComponents},
        statistics: {tensor: statistics, components: 4},
        ...(plan && {
          keyIndices: {tensor: plan.keyIndices, components: 1},
          blockLists: {tensor: plan.blockLists, components: 1},
        }),
        ...(mask && {mask: {tensor: mask, components: 1}}),
      },
      outputShape: query.shape,
      outputType: 'float32',
      outputComponents: components,
      threads: tileThreads(tile),
      workgroups: batch * heads * queryTiles,
      uniforms: {
        scale: {type: 'f32', value: scale},
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        queryTiles: {type: 'i32', value: queryTiles},
        ...(form.offset && {queryOffset: {type: 'i32', value: queryOffset}}),
        ...(plan && blockUniforms(geometry)),
      },
      variant: {tile, form, padded},
    });
  }

  protected shader({tile, form, padded}: QueryVariant): string {
    const {rows} = tile;
    const {headDim, sparse, mask} = form;
    // Values first: keys then serve twice in turn.
    const walk = new GradientWalk(
      tile,
      form,
      'query',
      [
        {owned: 'dy', walked: 'value', sums: 'products', then: ''},
        {owned: 'query', walked: 'key', sums: 'scores', then: scoreGradients(tile, form)},
        {walked: 'key', sums: 'gradient', weights: 'scores'},
      ],
      keysAhead,
    );
    return `
// A workgroup computes the gradients of tileQueries query rows of one head. It walks over tiles of tileKeys keys${
      sparse ? ' of the\n// blocks in its list' : ''
    }: gradients of the weights, scores again, then the gradients of the scores times the keys.
//
// Invocation (x, y) computes the scores of rows y + r * threadsY with columns x + c * threadsX, and keeps, in registers, the
// sums of its rows for the vectors x + o * threadsX of the head.
//
// Workgroup memory: the rows of query and dy, for the whole run or by chunks (ownedTile); walkedTile, the values, then the keys;
// weights, the gradients of the scores, of a row in the columns of an x. Global memory is read ahead into registers: keys while
// values are multiplied, the next values while keys are, and where the rows after that stand.
${walk.declarations()}
${noStatistics}
${writeRow('writeGradient', headDim)}
${workgroupIndex}
${keyRow}
${mask ? noScores : ''}
${walkOverKeys(form)}
${visitedKey(padded ? 'i32(statistics[head * uniforms.queryShape.z].w)' : undefined)}

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
  ${unroll(
    rows,
    (r) => `var statistics${r} = noStatistics;
  if (firstRow + y + ${r} * threadsY < endRow) {
    statistics${r} = statistics[firstQueryRow + firstRow + y + ${r} * threadsY];
  }`,
    '\n  ',
  )}

${walk.loop(
  'keyTiles',
  `// The initial values are needed: without them the last round's stay.
    var products = array<array<f32, columns>, rows>();
    var scores = array<array<f32, columns>, rows>();`,
)}

  ${walk.writeSums(
    'key',
    'gradient',
    (r, vector, sum) =>
      `if (firstRow + y + ${r} * threadsY < endRow) { writeGradient(firstQueryRow + firstRow + y + ${r} * threadsY, ${vector}, uniforms.scale * ${sum}); }`,
  )}
}`;
  }
}

/** Makes the gradients of scores of the scores: none where a row does not see a key. */
function scoreGradients({rows, columns}: GradientTile, form: AttendForm): string {
  return `${unroll(columns, (c) => `let position${c} = ${walkedPosition(c)};`)}
    ${unroll(
      rows,
      (r) => `{
      let last = i32(statistics${r}.z);
      ${form.mask ? `let maskStart = ${maskStart(form, `firstRow + y + ${r} * threadsY`)};\n      ` : ''}${unroll(
        columns,
        (c) => `scores[${r}][${c}] = select(
        0.0,
        exp2(${withMask(form, `uniforms.logitScale * scores[${r}][${c}]`, `position${c}`)} - statistics${r}.x) * (products[${r}][${c}] - statistics${r}.y),
        position${c} <= last);`,
        '\n      ',
      )}
    }`,
    )}`;
}
