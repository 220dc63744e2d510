import type {AttendWalk, WalkVariant} from '../attend/attend_walk.js';
import {fromLastRound, groupOfRow, groupText, WalkProgram} from '../attend/attend_walk.js';
import {logOfSums} from '../glsl/not_finite.js';
import type {RowTexture} from '../runtime/row_texture.js';

interface StatisticsVariant {
  rounds: number;
  valueDim: number;
  sinks?: true;
  /** Whether there is a gradient by the logarithms: less it, products of output and gradient stay what scores differ from. */
  byLogSumExp?: true;
}

/** Statements: the logarithm with a sink, however heavy. */
const withSink = `float sink = ${Math.LOG2E} * readSinks(head % heads, 0).x;
  float top = max(rowMax, sink);
  float logSum = top + log2(sum * exp2(rowMax - top) + exp2(sink - top));
  `;

/**
 * Stage 1 of the gradients, gradient statistics: rows `[batch * heads * queryLength]`. The logarithm to the base 2 of the sum
 * of exp2(score) over the keys that a query row sees (0 if it sees none), and the product of its output and its gradient.
 *
 * Maxima and sums come from the passes of the attend stage, in whichever of two textures a group's last round has drawn.
 */
export class GradientStatisticsProgram extends WalkProgram<StatisticsVariant> {
  constructor(walk: AttendWalk, sums: RowTexture[]) {
    const {call, endGroup} = walk;
    const {batch, heads, queryLength, valueDim} = call.geometry;
    const [even, odd] = sums;
    const {sinks, dLogSumExp} = call;
    super(walk, {
      name: 'GradientStatistics',
      inputs: {
        even,
        ...(odd && {odd}),
        ...(sinks && {sinks}),
        ...(dLogSumExp && {dLogSumExp}),
        attended: call.output,
        dy: call.dy,
      },
      uniforms: {endGroup},
      output: {rows: batch * heads * queryLength, columns: 4},
      variant: {rounds: sums.length, valueDim, ...(sinks && {sinks: true}), ...(dLogSumExp && {byLogSumExp: true})},
      fetches: 2 * Math.ceil(valueDim / 4) + 3,
    });
  }

  protected shader(variant: WalkVariant & StatisticsVariant): string {
    const take = (name: string) => `rowMax = fetch${name}(${name.toLowerCase()}At(group - firstGroup), 0, 0)[query];
    sum = fetch${name}(${name.toLowerCase()}At(group - firstGroup), 0, 1)[query];`;
    return `
// A fragment writes the statistics of one query row, if its group belongs to the range.
${groupText(variant)}${logOfSums}
void compute(int row, int texel) {
  int head = divide(row, queryLength);
  int position = row - head * queryLength;
  ${groupOfRow}
  float rowMax;
  float sum;
  ${fromLastRound(variant.rounds, take)}
  ivec2 attendedRow = attendedAt(row);
  ivec2 dyRow = dyAt(row);
  float product = 0.0;
  for (int v = 0; v < ${Math.ceil(variant.valueDim / 4)}; v++) {
    product += dot(fetchAttended(attendedRow, v, 0), fetchDy(dyRow, v, 0));
  }
  ${variant.byLogSumExp ? 'product -= readDLogSumExp(row, 0).x;\n  ' : ''}${variant.sinks ? withSink : ''}result0 = vec4(sum == 0.0 ? 0.0 : ${variant.sinks ? 'logSum' : 'rowMax + logOfSums(vec4(sum)).x'}, product, 0.0, 0.0);
}`;
  }
}
