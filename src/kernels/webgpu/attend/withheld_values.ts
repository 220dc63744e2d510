import {notFinite} from '../wgsl/not_finite.js';
import {positionOf} from '../wgsl/position_hooks.js';
import type {AttendForm} from './attend_form.js';
import {isPacked} from './attend_form.js';
import {keyTile, lastVisible, scoreOf, scoresOfRow} from './attend_walk.js';

/*
 * Values that are not finite. A row that does not see a key has a weight of 0 for its value, but zero times a NaN is a NaN. So
 * where not all rows of a workgroup see a key, what is not finite in its value stands in the tile as 0: it is withheld. That
 * is noted, and if it happened at all, the rows that do see such a key get it back in the end, whatever their weight. Keys that
 * all rows see, which are most under a causal mask alone, are not looked at.
 */

/** Shader text: functions for the texts below. */
export const withheldFunctions = `${notFinite}

// 16 bytes: see keyTileCount.
var<workgroup> anyWithheld : array<atomic<u32>, 4>;

fn withhold(x : vec4<f32>) -> vec4<f32> {
  let isWithheld = notFinite(x);
  if (any(isWithheld)) {
    atomicStore(&anyWithheld[0], 1u);
  }
  return select(x, vec4<f32>(0.0), isWithheld);
}

fn withheldOf(x : vec4<f32>) -> vec4<f32> {
  return select(vec4<f32>(0.0), x, notFinite(x));
}
`;

/** Shader text: `withhold` for words of eight values. */
export const withholdWords = `
fn withholdWords(words : vec4<i32>) -> vec4<i32> {
  let bits = bitcast<vec4<u32>>(words);
  let lowWithheld = (bits & vec4<u32>(0x7c00u)) == vec4<u32>(0x7c00u);
  let highWithheld = (bits & vec4<u32>(0x7c000000u)) == vec4<u32>(0x7c000000u);
  if (any(lowWithheld) || any(highWithheld)) {
    atomicStore(&anyWithheld[0], 1u);
  }
  let low = select(bits & vec4<u32>(0xffffu), vec4<u32>(0u), lowWithheld);
  return bitcast<vec4<i32>>(low | select(bits & vec4<u32>(0xffff0000u), vec4<u32>(0u), highWithheld));
}`;

/** Statements, behind `ownedRows`: the last position, and with a window the first, that all rows of the workgroup are sure to see. */
export function findSeenByAll(form: AttendForm): string {
  const last = form.mask ? '-1' : lastVisible(form, isPacked(form) ? '0' : 'firstRow');
  const end = positionOf(isPacked(form) ? 'uniforms.queryLength' : 'endRow');
  return `let seenByAll = ${last};${form.window ? `\n  let firstSeenByAll = ${end} - uniforms.window;` : ''}`;
}

/** Expression: whether some row of the workgroup may not see the key at a position, or one of keys from `first` to it. */
export const isNotSeenByAll = ({window}: AttendForm, position: string, first = position): string =>
  window ? `(${position} > seenByAll || ${first} < firstSeenByAll)` : `${position} > seenByAll`;

/**
 * Statements: withholds from `values`, of the key at `position`, all that the tile must not hold; padding altogether.
 *
 * @param ofWords whether they are words of float16, not vec4 of values.
 */
export const withholdFrom = (form: AttendForm, values: string[], position: string, ofWords = false): string => {
  const [withhold, nothing] = ofWords ? ['withholdWords', 'vec4<i32>()'] : ['withhold', 'vec4<f32>()'];
  const statements = values.map((x) => `${x} = ${withhold}(select(${nothing}, ${x}, ${position} != paddingPosition));`);
  return `if (${isNotSeenByAll(form, position)}) { ${statements.join(' ')} }`;
};

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
        if (${isNotSeenByAll(form, 'position')} && position != paddingPosition) {
      ${values.map((value, i) => `let withheld${i} = withheldOf(${value});`).join('\n      ')}
      ${rows.map(ofRow).join('\n      ')}
        }
      }
    }
  }`;
}
