import type {PlanRule} from '../../../attention/attention_call.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall} from '../webgl_call.js';

type Estimate = Pick<PlanRule, 'estimate'>;

/**
 * What selection kept of the attention that it expected, one value a query block and head. Pooled scores are shares of what goes to
 * blocks that compete: those of the selected blocks over all, 1 where there are none. Sampled means are shares of all attention:
 * what goes to blocks that are not selected is lost; they can add up to more than 1.
 *
 * @param masses pooled scores, or the means of `sampledMass`, its layer 0. Blocks that do not compete have 0.
 */
export function keptMass({context}: WebGLCall, rule: Estimate, masses: RowTexture, blockLists: RowTexture): RowTexture {
  return new KeptMassProgram(rule, masses, blockLists).run(context);
}

export class KeptMassProgram extends AttentionProgram<Estimate> {
  constructor({estimate}: Estimate, masses: RowTexture, blockLists: RowTexture) {
    super({
      name: 'KeptMass',
      inputs: {masses, blockLists},
      output: {rows: masses.rows, columns: 1},
      variant: {estimate},
      fetches: 9 * masses.texels,
    });
  }

  protected shader({estimate}: Estimate): string {
    return `
// A fragment adds up the masses of one query block, once of all key blocks and once of those in its list. What a row has
// beyond its columns is 0.
void compute(int row, int texel) {
  ivec2 at = massesAt(row);
  vec4 sums = vec4(0.0);
  for (int t = 0; t < massesTexels; t++) {
    sums += fetchMasses(at, t, 0);
  }
  float total = dot(sums, vec4(1.0));
  ivec2 list = blockListsAt(row);
  int count = int(fetchBlockLists(list, 0, 0).x);
  float kept = 0.0;
  for (int entry = 1; entry <= count; entry++) {
    int block = int(fetchBlockLists(list, entry / 4, 0)[entry % 4]);
    kept += fetchMasses(at, block / 4, 0)[block % 4];
  }
  result0 = vec4(${estimate === 'sampled' ? 'max(0.0, 1.0 - (total - kept))' : 'total > 0.0 ? kept / total : 1.0'});
}`;
  }
}
