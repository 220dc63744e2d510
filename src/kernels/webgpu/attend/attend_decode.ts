import {unroll} from '../../unroll.js';
import {AttentionProgram} from '../runtime/program.js';
import type {HeadDims} from '../runtime/device_limits.js';
import type {WebGPUCall, WebGPUCallShape} from '../webgpu_call.js';
import {readPackedRow} from '../wgsl/float16.js';
import {headVectors, localOf, readRow} from '../wgsl/rows.js';
import {mergeStates} from '../wgsl/softmax_state.js';
import type {AttendForm} from './attend_form.js';
import {attendForm, attendSpec} from './attend_form.js';
import {attendWalk, keyTile, ownedRows, scoreOf, scoresOfRow} from './attend_walk.js';
import {findSeenByAll, giveBackWithheld, withheldFunctions, withholdFrom} from './withheld_values.js';

/** Invocations of a workgroup, and teams, at most. */
const mostThreads = 128;
const mostTeams = 8;
/** Keys that a team takes at a time. */
const teamKeys = 16;
/** Invocations that share the product of a query row and a key: together they read 64 bytes in a row. */
const sharing = 4;

/**
 * Most query rows of the heads that read one key head: more have products enough to pay for tiles in workgroup memory
 * (docs/performance.md, 2026-11-30).
 */
const mostRows = 4;

/** How the workgroups of `AttendDecodeProgram` are divided. */
export interface DecodeTeams {
  /** Query rows, up to a power of two. */
  rows: number;
  /** Invocations of a team: at least one for each vec4 of values. */
  lanes: number;
}

/** The division for the rows of a call, if they are few enough and the device has the workgroup memory. */
export function decodeTeams({backend, geometry}: WebGPUCallShape): DecodeTeams | undefined {
  const {heads, keyValueHeads, queryLength, valueDim} = geometry;
  const rows = powerOfTwo((queryLength * heads) / keyValueHeads);
  const lanes = Math.max(4, powerOfTwo(headVectors(valueDim)));
  const fits = rows <= mostRows && lanes <= sharing * teamKeys;
  const teams = {rows, lanes};
  return fits && decodeBytes(teams, geometry) <= backend.device.limits.maxComputeWorkgroupStorageSize
    ? teams
    : undefined;
}

const powerOfTwo = (x: number) => 2 ** Math.ceil(Math.log2(x));

const teamsOf = ({lanes}: DecodeTeams) => Math.min(mostTeams, mostThreads / lanes);
const threadsOf = (teams: DecodeTeams) => teamsOf(teams) * teams.lanes;

/** Workgroup memory that the program declares. */
function decodeBytes(teams: DecodeTeams, {headDim}: HeadDims): number {
  const scores = teamsOf(teams) * teams.rows * teamKeys;
  const states = threadsOf(teams) * 32;
  const flags = 2 * 16;
  return 16 * teams.rows * headVectors(headDim) + 4 * scores * (sharing + 1) + states + flags;
}

interface DecodeForm extends AttendForm {
  /** Whether keys and values are packed float16. */
  packed?: true;
  teams: DecodeTeams;
}

/**
 * Exact attention of the few query rows of decoding, over a chunk of the keys: states of the softmax, as `AttendProgram` makes them. It
 * waits for keys and values alone, which are read once, by all heads that share them.
 */
export class AttendDecodeProgram extends AttentionProgram<DecodeForm> {
  constructor(call: WebGPUCall, {teams, chunks}: {teams: DecodeTeams; chunks: number}) {
    const form = attendForm(call, undefined, chunks);
    super({
      name: 'AttendDecode',
      ...attendSpec(call, form, {tileQueries: teams.rows, chunks}),
      threads: threadsOf(teams),
      variant: {...form, teams, ...(call.key.dtype === 'int32' && {packed: true as const})},
    });
  }

  protected shader({teams, packed, ...form}: DecodeForm): string {
    const readCached = packed ? readPackedRow : readRow;
    const {headDim, valueDim} = form;
    const {rows, lanes} = teams;
    const count = teamsOf(teams);
    const threads = threadsOf(teams);
    const keyVectors = headVectors(headDim);
    const valueVectors = headVectors(valueDim);
    // Keys of which a team multiplies its parts at once, and how often it does so; an invocation's vec4 of each.
    const keysOfRound = lanes / sharing;
    const rounds = teamKeys / keysOfRound;
    const parts = Math.ceil(keyVectors / sharing);
    // Rows whose scores an invocation adds up: where a team has more invocations than keys, they share the rows.
    const rowSharing = Math.max(1, lanes / teamKeys);
    const keySharing = Math.max(1, teamKeys / lanes);
    const eachRow = (text: (r: number) => string) => unroll(rows, text);
    const eachKey = (text: (k: number) => string) => unroll(teamKeys, text);
    const ifPart = (c: number) =>
      keyVectors % sharing === 0 || c < parts - 1 ? '' : `if (part + ${c * sharing} < ${keyVectors}) `;
    const ifVector = valueVectors === lanes ? '' : `if (lane < ${valueVectors}) `;
    const rowOfTeam = (r: string) => `(team * ${rows} + ${r})`;
    const positionOf = (key: string | number) => `positionIn(head, tile, team * ${teamKeys} + ${key})`;
    // Padding reads some row that exists.
    const rowOfKey = (key: string) => `firstKeyRow + min(tile.x + team * ${teamKeys} + ${key}, lastPosition)`;
    return `
// A workgroup takes all query rows of the heads that read one key head (${rows} at most: all rows of the first head, then of the second,
// …) and one of several chunks of the keys. Its ${count} teams of ${lanes} invocations take ${teamKeys} keys each at a time, keep states of the softmax of
// their own, and merge them in the end.
//
// Keys and values${packed ? ', two float16 a word,' : ''} go from global memory to registers, all loads of ${teamKeys} keys at once. ${sharing} invocations share the product of a row and
// a key; of the values an invocation takes one vec4 of each key, and keeps that of the output of every row.
//
// Workgroup memory: queryRows for the whole run; of each team, row and key the ${sharing} parts of the product (scoreParts), then the
// score.
const threads = ${threads};
const tileQueries = ${rows};
const tileKeys = ${count * teamKeys};
var<workgroup> queryRows : array<vec4<f32>, ${rows * keyVectors}>;
var<workgroup> scoreParts : array<f32, ${count * rows * teamKeys * sharing}>;
var<workgroup> scores : array<f32, ${count * rows * teamKeys}>;
${attendWalk(form)}
${withheldFunctions}
${mergeStates(lanes, threads)}
${readRow('readQuery', 'query', headDim)}
${readCached('readKey', 'key', headDim)}
${readCached('readValue', 'value', valueDim)}

fn main(index : i32) {
  ${localOf(threads)}
  let team = local / ${lanes};
  let lane = local % ${lanes};
  let part = lane % ${sharing};
  // The vec4 of values; invocations without one read the last, and write nothing.
  let vector = ${valueVectors === lanes ? 'lane' : `min(lane, ${valueVectors - 1})`};
${ownedRows(form)}
  ${findSeenByAll(form)}
  for (var i = local; i < ${rows * keyVectors}; i += threads) {
    let row = firstRow + i / ${keyVectors};
    queryRows[i] = select(vec4<f32>(), uniforms.logitScale * readQuery(head * uniforms.queryLength + min(row, endRow - 1), i % ${keyVectors}), row < endRow);
  }
  // Barrier: all read all query rows.
  workgroupBarrier();

  ${eachRow((r) => `var state${r} = emptyState;`)}
  for (var t = 0; t < keyTiles; t++) {
    let tile = keySlots(head, queryTileIndex, ${keyTile(form, 't')});
    // 1. Keys and values on their way.
    ${unroll(rounds, (i) =>
      unroll(
        parts,
        (c) =>
          `let key${i}_${c} = readKey(${rowOfKey(`lane / ${sharing} + ${i * keysOfRound}`)}, min(part + ${c * sharing}, ${keyVectors - 1}));`,
      ),
    )}
    ${eachKey((k) => `var value${k} = readValue(${rowOfKey(String(k))}, vector);`)}

    // 2. Parts of products.
    ${eachRow(
      (r) => `{
      ${unroll(rounds, (i) => `var sum${i} = 0.0;`)}
      ${unroll(
        parts,
        (c) => `${ifPart(c)}{
        let query = queryRows[${r * keyVectors} + part + ${c * sharing}];
        ${unroll(rounds, (i) => `sum${i} += dot(query, key${i}_${c});`)}
      }`,
      )}
      ${unroll(rounds, (i) => `scoreParts[(${rowOfTeam(String(r))} * ${teamKeys} + lane / ${sharing} + ${i * keysOfRound}) * ${sharing} + part] = sum${i};`)}
    }`,
    )}
    // Barrier: whole products need the parts of others.
    workgroupBarrier();

    // 3. Scores, masked.
    ${unroll(
      Math.ceil(rows / rowSharing),
      (r) =>
        `${rows < rowSharing ? `if (lane / ${teamKeys} < ${rows}) ` : ''}{
      let r = ${rowSharing === 1 ? r : `lane / ${teamKeys} + ${r * rowSharing}`};
      ${scoresOfRow(form, `min(firstRow + r, endRow - 1)`)}
      ${unroll(
        keySharing,
        (k) => `{
        let key = lane % ${teamKeys} + ${k * lanes};
        let at = ${rowOfTeam('r')} * ${teamKeys} + key;
        let product = (scoreParts[at * ${sharing}] + scoreParts[at * ${sharing} + 1]) + (scoreParts[at * ${sharing} + 2] + scoreParts[at * ${sharing} + 3]);
        let position = ${positionOf('key')};
        scores[at] = ${scoreOf(form, 'product', 'position')};
      }`,
      )}
    }`,
    )}
    // Barrier: all invocations of a team read its scores. The parts of the next round are written behind it.
    workgroupBarrier();

    // 4. Weights, and the weighted sum of values.
    ${eachKey((k) => `{ let position = ${positionOf(k)}; ${withholdFrom(form, [`value${k}`], 'position')} }`)}
    ${eachRow(
      (r) => `{
      let at = ${rowOfTeam(String(r))} * ${teamKeys};
      var newMax = state${r}.maximum;
      ${eachKey((k) => `let score${k} = scores[at + ${k}];`)}
      ${eachKey((k) => `newMax = max(newMax, score${k});`)}
      let rescale = exp2(state${r}.maximum - newMax);
      state${r}.maximum = newMax;
      state${r}.sum *= rescale;
      state${r}.values *= rescale;
      ${eachKey((k) => `{ let weight = exp2(score${k} - newMax); state${r}.sum += weight; state${r}.values = fma(vec4<f32>(weight), value${k}, state${r}.values); }`)}
    }`,
    )}
  }

  // 5. The states of all teams.
  ${eachRow(
    (r) => `{
    var state = mergeLanes(state${r});
    let row = firstRow + ${r};
    if (local < ${lanes} && row < endRow) {
      ${giveBackWithheld(form, ['row'], ['readValue(firstKeyRow + position, vector)'], (_r, _v, withheld) => `state.values += ${withheld};`)}
      ${ifVector}{ writeValues(head * uniforms.queryLength + row, chunk, vector, state.values); }
      if (local == 0) { writeSums(head * uniforms.queryLength + row, chunk, state.maximum, state.sum); }
    }
    // Barrier: the states of the next row replace these.
    workgroupBarrier();
  }`,
  )}
}`;
  }
}
