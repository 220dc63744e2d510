import {sinkWeight} from '../glsl/score_forms.js';
import {noMaximum} from '../glsl/score_tile.js';
import type {RunningSums} from './attend_passes.js';
import type {AttendWalk, WalkVariant} from './attend_walk.js';
import {fromLastRound, groupOfRow, groupText, WalkProgram} from './attend_walk.js';

interface StoreVariant {
  rounds: number;
  sinks?: true;
}

/** The output tensor: sums over weights, from whichever texture a group's last round has drawn. */
export class StoreAttentionProgram extends WalkProgram<StoreVariant> {
  constructor(walk: AttendWalk, sums: RunningSums[]) {
    const [even, odd] = sums;
    const {sinks} = walk.call;
    super(walk, {
      name: 'StoreAttention',
      inputs: {
        evenStatistics: even.statistics,
        evenValues: even.values!,
        ...(odd && {oddStatistics: odd.statistics, oddValues: odd.values!}),
        ...(sinks && {sinks}),
      },
      uniforms: {endGroup: walk.endGroup},
      variant: {rounds: sums.length, ...(sinks && {sinks: true})},
      fetches: 3 * walk.parts,
    });
  }

  protected shader(variant: WalkVariant & StoreVariant): string {
    const {tileKeys, split, rounds, sinks} = variant;
    const vectors = tileKeys / 4;
    const sums = (name: string) => {
      const x = `fetch${name}Values(${lower(name)}ValuesAt(row), vector / ${vectors}, query * ${vectors} + vector % ${vectors})`;
      return split
        ? `float rowMax = ${noMaximum};
    for (int part = 0; part < parts; part++) {
      rowMax = max(rowMax, read${name}Statistics(row + part, 0)[query]);
    }
    float sum = 0.0;
    float x = 0.0;
    for (int part = 0; part < parts; part++, row++) {
      ivec2 at = ${lower(name)}StatisticsAt(row);
      float weight = exp2(fetch${name}Statistics(at, 0, 0)[query] - rowMax);
      float partSum = fetch${name}Statistics(at, 0, 1)[query];
      sum += weight * partSum;
      x += weight * ${x}[place % 4];
    }`
        : `${sinks ? `float rowMax = fetch${name}Statistics(${lower(name)}StatisticsAt(row), 0, 0)[query];\n    ` : ''}float sum = fetch${name}Statistics(${lower(name)}StatisticsAt(row), 0, 1)[query];
    float x = ${x}[place % 4];`;
    };
    const quotient = (name: string) => `${sums(name)}
    // A row that sees nothing gives zeros.
    result0 = vec4(sum == 0.0 ? 0.0 : x / ${sinks ? `(sum + ${sinkWeight('rowMax')})` : 'sum'}, 0.0, 0.0, 0.0);`;
    return `
// A fragment writes one value of the tensor, if its group belongs to the range.
${groupText(variant)}
void compute(int index) {
  int position = (index / valueDim) % queryLength;
  int head = index / (valueDim * queryLength);
  int place = index % valueDim;
  int vector = place / 4;
  ${groupOfRow}
  int row = ${split ? '(group - firstGroup) * parts' : 'group - firstGroup'};
  ${fromLastRound(rounds, quotient)}
}`;
  }
}

const lower = (name: string) => name[0].toLowerCase() + name.slice(1);
