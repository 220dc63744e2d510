import type {TensorInfo} from '@tensorflow/tfjs-core';
import {unroll} from '../../unroll.js';
import type {AttendForm} from '../attend/attend_form.js';
import {attendForm, walkSpec} from '../attend/attend_form.js';
import {walkOverKeys} from '../attend/attend_walk.js';
import {AttentionProgram} from '../runtime/program.js';
import type {JoinedPlan, WebGPUGradientCall} from '../webgpu_call.js';
import {rowComponents, rowInputs, writeRow} from '../wgsl/rows.js';
import {derivativeFunctions, hookedScore, hooksOfRow, scoreDerivative} from '../wgsl/score_hooks.js';
import {invocationPlace, rowOf, tileThreads} from '../wgsl/tile.js';
import {keysAhead, ownedQueries, noStatistics, visitedKey, walkedPosition} from './gradient_rows.js';
import type {GradientTile} from './gradient_tile.js';
import {ownedCount} from './gradient_tile.js';
import {GradientWalk} from './gradient_walk.js';

/** Three products of rows where the forward pass has two, and what is between them. */
const timesForward = 1.8;

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
  constructor(call: WebGPUGradientCall, tile: GradientTile, statistics: TensorInfo, plan?: JoinedPlan) {
    const {query, key, value, dy, keyLengths, geometry} = call;
    // Key lengths are in the statistics: with them as an input there would be more buffers than every device has.
    const form = {...attendForm(call, plan), padded: false, perHead: undefined};
    const {inputs, ...walk} = walkSpec(call, form, {tileQueries: ownedCount(tile), plan, timesForward});
    super({
      name: 'GradientQuery',
      ...walk,
      inputs: {...rowInputs({query, key, value, dy, statistics}), ...inputs},
      outputShape: query.shape,
      outputComponents: rowComponents(geometry.headDim),
      threads: tileThreads(tile),
      variant: {tile, form, padded: keyLengths !== undefined},
    });
  }

  protected shader({tile, form, padded}: QueryVariant): string {
    const {rows} = tile;
    const {headDim, sparse} = form;
    // Values first: keys then serve twice in turn.
    const walk = new GradientWalk(
      tile,
      form,
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
${walkOverKeys(form)}${derivativeFunctions(form)}
${visitedKey(padded ? `i32(statistics[${form.slopes ? '2 * ' : ''}head * uniforms.queryLength].w)` : undefined)}

fn main(index : i32) {
${invocationPlace(tile)}
${ownedQueries(form)}
  ${unroll(
    rows,
    (r) => `var statistics${r} = noStatistics;${form.slopes ? `\n  var slope${r} = 0.0;` : ''}
  if (firstRow + ${rowOf(r)} < endRow) {
    ${form.slopes ? slopedStatistics(r) : `statistics${r} = statistics[firstQueryRow + firstRow + ${rowOf(r)}];`}
  }`,
    '\n  ',
  )}

${walk.loop('keyTiles')}

  ${walk.writeSums(
    'key',
    'gradient',
    (r, vector, sum) =>
      `if (firstRow + ${rowOf(r)} < endRow) { writeGradient(firstQueryRow + firstRow + ${rowOf(r)}, ${vector}, uniforms.scale * ${sum}); }`,
  )}
}`;
  }
}

/** Statements: a row's statistics and its slope. */
const slopedStatistics = (r: number) => `let at${r} = 2 * (firstQueryRow + firstRow + ${rowOf(r)});
    statistics${r} = statistics[at${r}];
    slope${r} = statistics[at${r} + 1].x;`;

/** Makes the gradients of scores of the scores: none where a row does not see a key. */
function scoreGradients({rows, columns}: GradientTile, form: AttendForm): string {
  const timesDerivative = (score: string) => (form.softCap ? ` * ${scoreDerivative(form, score)}` : '');
  return `${unroll(columns, (c) => `let position${c} = ${walkedPosition(c)};`)}
    ${unroll(
      rows,
      (r) => `{
      let last = i32(statistics${r}.z);
      ${hooksOfRow(form, 'head', `firstRow + ${rowOf(r)}`, `slope${r}`).join('\n      ')}
      ${unroll(
        columns,
        (c) => `{
        let score = ${hookedScore(form, `uniforms.logitScale * scores[${r}][${c}]`, `position${c}`)};
        let gradient = exp2(score - statistics${r}.x) * (products[${r}][${c}] - statistics${r}.y)${timesDerivative(`uniforms.logitScale * scores[${r}][${c}]`)};
        scores[${r}][${c}] = select(gradient, 0.0, position${c} > last${form.mask || form.window ? ' || score == masked' : ''});
      }`,
        '\n      ',
      )}
    }`,
    )}`;
}
