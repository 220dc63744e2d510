import {noMaximum} from '../glsl/score_tile.js';
import type {RunningSums} from './attend_passes.js';
import type {AttendWalk, WalkVariant} from './attend_walk.js';
import {fromLastRound, groupOfRow, groupText, WalkProgram} from './attend_walk.js';

interface LogSumVariant {
  rounds: number;
  sinks?: true;
}

/** A tensor of the natural logarithm of each row's sum of exp(score), from whichever texture a group's last round has drawn. */
export class StoreLogSumExpProgram extends WalkProgram<LogSumVariant> {
  constructor(walk: AttendWalk, sums: RunningSums[]) {
    const [even, odd] = sums;
    const {sinks} = walk.call;
    super(walk, {
      name: 'StoreLogSumExp',
      inputs: {even: even.statistics, ...(odd && {odd: odd.statistics}), ...(sinks && {sinks})},
      uniforms: {endGroup: walk.endGroup},
      variant: {rounds: sums.length, ...(sinks && {sinks: true})},
      fetches: 4 * walk.parts,
    });
  }

  protected shader(variant: WalkVariant & LogSumVariant): string {
    const {split, rounds, sinks} = variant;
    const parts = split ? 'parts' : '1';
    const merge = (name: string) => `for (int part = 0; part < ${parts}; part++) {
      rowMax = max(rowMax, read${name}(row + part, 0)[query]);
    }
    for (int part = 0; part < ${parts}; part++) {
      ivec2 at = ${name.toLowerCase()}At(row + part);
      sum += exp2(fetch${name}(at, 0, 0)[query] - rowMax) * fetch${name}(at, 0, 1)[query];
    }`;
    return `
// A fragment writes the logarithm of one row, if its group belongs to the range.
${groupText(variant)}
void compute(int index) {
  int position = index % queryLength;
  int head = index / queryLength;
  ${groupOfRow}
  int row = (group - firstGroup) * ${parts};
  float rowMax = ${noMaximum};
  float sum = 0.0;
  ${fromLastRound(rounds, merge)}
  ${
    sinks
      ? `float sink = ${Math.LOG2E} * readSinks(head % heads, 0).x;
  float top = max(rowMax, sink);
  float logSum = top + log2(sum * exp2(rowMax - top) + exp2(sink - top));`
      : `// Of a row that sees nothing −Infinity, by its bits.
  float logSum = sum == 0.0 ? uintBitsToFloat(0xff800000u) : rowMax + log2(sum);`
  }
  result0 = vec4(${Math.LN2} * logSum, 0.0, 0.0, 0.0);
}`;
  }
}
