import type {AttendWalk, WalkVariant} from '../attend/attend_walk.js';
import {groupText, walkInputs, walkUniforms, walkVariant} from '../attend/attend_walk.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';

interface StatisticsVariant extends WalkVariant {
  rounds: number;
  valueDim: number;
}

/**
 * Stage 1 of the gradients, gradient statistics: rows `[batch * heads * queryLength]`. The logarithm to the base 2 of the sum
 * of exp2(score) over the keys that a query row sees (0 if it sees none), and the product of its output and its gradient.
 *
 * Maxima and sums come from the passes of the attend stage, in whichever of two textures a group's last round has drawn.
 */
export class GradientStatisticsProgram extends AttentionProgram<StatisticsVariant> {
  constructor(walk: AttendWalk, sums: RowTexture[]) {
    const {call, endGroup} = walk;
    const {batch, heads, queryLength, valueDim} = call.geometry;
    const [even, odd] = sums;
    super({
      name: 'GradientStatistics',
      inputs: {even, ...(odd && {odd}), attended: call.output, dy: call.dy, ...walkInputs(walk)},
      uniforms: {...walkUniforms(walk), endGroup},
      output: {rows: batch * heads * queryLength, columns: 4},
      variant: {...walkVariant(walk), rounds: sums.length, valueDim},
      fetches: 2 * Math.ceil(valueDim / 4) + 3,
    });
  }

  protected shader(variant: StatisticsVariant): string {
    const take = (name: string) => `rowMax = fetch${name}(${name.toLowerCase()}At(group - firstGroup), 0, 0)[query];
    sum = fetch${name}(${name.toLowerCase()}At(group - firstGroup), 0, 1)[query];`;
    return `
// A fragment writes the statistics of one query row, if its group belongs to the range.
${groupText(variant)}
void compute(int row, int texel) {
  int head = divide(row, queryLength);
  int position = row - head * queryLength;
  int block = divide(position, blockSize);
  int inBlock = position - block * blockSize;
  int query = divide(inBlock, groupsPerBlock);
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock - query * groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }
  float rowMax;
  float sum;
  ${
    variant.rounds === 1
      ? take('Even')
      : `int rounds = (slotCount(groupAt(group)) + slotsPerRound - 1) / slotsPerRound;
  if (max(rounds, 1) % 2 == 1) {
    ${take('Even')}
  } else {
    ${take('Odd')}
  }`
  }
  ivec2 attendedRow = attendedAt(row);
  ivec2 dyRow = dyAt(row);
  float product = 0.0;
  for (int v = 0; v < ${Math.ceil(variant.valueDim / 4)}; v++) {
    product += dot(fetchAttended(attendedRow, v, 0), fetchDy(dyRow, v, 0));
  }
  result0 = vec4(sum == 0.0 ? 0.0 : rowMax + log2(sum), product, 0.0, 0.0);
}`;
  }
}
