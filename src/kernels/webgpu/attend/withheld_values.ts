import {notFinite} from '../wgsl/not_finite.js';
import type {AttendForm} from './attend_form.js';
import {isPacked} from './attend_form.js';
import {keyTile, lastVisible, scoreOf, scoresOfRow} from './attend_walk.js';

/*
 * Values that are not finite. A row that does not see a key has a weight of 0 for its value, but zero times a NaN is a NaN. So
 * where not all rows of a workgroup see a key, what is not finite in its value stands in the tile as 0: it is withheld. That
 * is noted, and if it happened at all, the rows that do see such a key get it back in the end, whatever their weight. Keys that
 * all rows see, which are most under a causal mask alone, are not looked at.
 */

/**
 * Shader text: functions for the texts below.
 *
 * @param stored expression: the values `x`, a vec4<f32>, as the tile holds them. What overflows there is not finite.
 */
export const withheldFunctions = (stored: string): string => `${notFinite}

// 16 bytes: see keyTileCount.
var<workgroup> anyWithheld : array<atomic<u32>, 4>;

fn asStored(x : vec4<f32>) -> vec4<f32> {
  return ${stored};
}

fn withhold(x : vec4<f32>) -> vec4<f32> {
  let isWithheld = notFinite(asStored(x));
  if (any(isWithheld)) {
    atomicStore(&anyWithheld[0], 1u);
  }
  return select(x, vec4<f32>(0.0), isWithheld);
}

fn withheldOf(x : vec4<f32>) -> vec4<f32> {
  return select(vec4<f32>(0.0), asStored(x), notFinite(asStored(x)));
}
`;

/** Statement, behind `ownedRows`: the last position that all rows of the workgroup are sure to see. */
export function findSeenByAll(form: AttendForm): string {
  const last = form.mask ? '-1' : lastVisible(form, isPacked(form) ? '0' : 'firstRow');
  return `let seenByAll = ${last};`;
}

/** Statements: withholds from `values`, of the key at `position`, all that the tile must not hold; padding altogether. */
export const withholdFrom = (values: string[], position: string): string =>
  `if (${position} > seenByAll) { ${values
    .map((x) => `${x} = withhold(select(vec4<f32>(), ${x}, ${position} != paddingPosition));`)
    .join(' ')} }`;

/**
 * Statements, behind the last barrier: walks over the keys again if anything was withheld.
 *
 * @param rows expressions: some rows of the workgroup.
 * @param values expressions: vec4 of values of the key in row `firstKeyRow + position`, of type vec4<f32>.
 * @param add statement: adds what was withheld of a value (an expression) to the output of a row.
 */
export function giveBackWithheld(
  form: AttendForm,
  rows: string[],
  values: string[],
  add: (row: number, value: number, withheld: string) => string,
): string {
  const ofRow = (row: string, r: number) => `{
        ${scoresOfRow(form, row)}
        if (!(${scoreOf(form, '0.0', 'position')} == masked)) { ${values.map((_, i) => add(r, i, `withheld${i}`)).join(' ')} }
      }`;
  return `if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, ${keyTile(form, 't')});
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if (position > seenByAll && position != paddingPosition) {
      ${values.map((value, i) => `let withheld${i} = withheldOf(${value});`).join('\n      ')}
      ${rows.map(ofRow).join('\n      ')}
        }
      }
    }
  }`;
}
