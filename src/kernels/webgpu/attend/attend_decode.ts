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
import {findSeenByAll, giveBackWithheld, isNotSeenByAll, withheldFunctions, withholdFrom} from './withheld_values.js';

/** Most teams of a workgroup. */
const mostTeams = 8;
/** Groups in which a team takes its keys: an invocation computes the weights of one of them. */
const groups = 2;
/** Invocations that share the product of a query row and a key: together they read 64 bytes in a row. */
const sharing = 4;

/** Most query rows of the heads that read one key head: more have products enough to pay for tiles in workgroup memory. */
const mostRows = 8;

/** How the workgroups of `AttendDecodeProgram` are divided. */
export interface DecodeTeams {
  /** Query rows, up to a power of two. */
  rows: number;
  /** Invocations of a team: at least one for each vec4 of values. */
  lanes: number;
  /** Keys that a team takes at a time. */
  keys: number;
}

/** The division for the rows of a call, if they are few enough and the device has the workgroup memory. */
export function decodeTeams({backend, geometry}: WebGPUCallShape): DecodeTeams | undefined {
  const {heads, keyValueHeads, queryLength, valueDim} = geometry;
  const rows = powerOfTwo((queryLength * heads) / keyValueHeads);
  const lanes = Math.max(4, powerOfTwo(headVectors(valueDim)));
  // By measurement (docs/performance.md, 2026-11-30): what many rows hold leaves registers for fewer keys.
  const teams = {rows, lanes, keys: rows > 4 && lanes <= 16 ? 8 : 16};
  const fits = rows <= mostRows && lanes <= sharing * teams.keys;
  return fits && decodeBytes(divide(teams, true), geometry) <= backend.device.limits.maxComputeWorkgroupStorageSize
    ? teams
    : undefined;
}

interface Division extends DecodeTeams {
  /** Teams of a workgroup. */
  teams: number;
}

/** Invocations of small workgroups wait less for each other; of packed rows, half of the bytes, more have to be on their way. */
function divide(teams: DecodeTeams, isPacked: boolean): Division {
  const threads = isPacked && teams.rows <= 2 ? 128 : 64;
  return {...teams, teams: Math.max(1, Math.min(mostTeams, threads / teams.lanes))};
}

const powerOfTwo = (x: number) => 2 ** Math.ceil(Math.log2(x));

const threadsOf = ({teams, lanes}: Division) => teams * lanes;

/*
 * Where parts of products stand, in values: `[part][team][row][key]`. Rows, teams and parts are so far apart that invocations which write parts
 * side by side, and those which add them up, meet different banks of workgroup memory.
 */
const rowStride = ({keys}: Division) => keys + 1;
const teamStride = (division: Division) => 32 * Math.ceil((division.rows * rowStride(division) - 16) / 32) + 16;
const partStride = (division: Division) => division.teams * teamStride(division) + 4;
/** From a team's weights to the next, in vec4, and from its sums of groups. Two teams of a subgroup meet different banks here, too. */
const weightStride = ({rows, keys}: Division) => (rows * keys) / 4 + 1;
const sumStride = ({rows}: Division) => rows * groups + 1;

/** Workgroup memory that the program declares. */
function decodeBytes(division: Division, {headDim}: HeadDims): number {
  const {rows, teams} = division;
  const weights = teams * weightStride(division) * 4;
  const sums = teams * sumStride(division) * 2;
  const states = threadsOf(division) * 32;
  const flags = 2 * 16;
  return 16 * rows * headVectors(headDim) + 4 * (sharing * partStride(division) + weights + sums) + states + flags;
}

interface DecodeForm extends AttendForm {
  /** Whether keys and values are packed float16. */
  packed?: true;
  division: Division;
}

/**
 * Exact attention of the few query rows of decoding, over a chunk of the keys: states of the softmax, as `AttendProgram` makes them. It
 * waits for keys and values alone, which are read once, by all heads that share them.
 */
export class AttendDecodeProgram extends AttentionProgram<DecodeForm> {
  constructor(call: WebGPUCall, {teams, chunks}: {teams: DecodeTeams; chunks: number}) {
    const isPacked = call.key.dtype === 'int32';
    const division = divide(teams, isPacked);
    const form = attendForm(call, undefined, chunks);
    super({
      name: 'AttendDecode',
      ...attendSpec(call, form, {tileQueries: division.rows, chunks}),
      threads: threadsOf(division),
      variant: {...form, division, ...(isPacked && {packed: true as const})},
    });
  }

  protected shader({division, packed, ...form}: DecodeForm): string {
    const readCached = packed ? readPackedRow : readRow;
    const {headDim, valueDim} = form;
    const {rows, lanes, keys: teamKeys, teams: count} = division;
    const groupKeys = teamKeys / groups;
    const threads = threadsOf(division);
    const keyVectors = headVectors(headDim);
    const valueVectors = headVectors(valueDim);
    // Keys of which a team multiplies its parts at once, and how often it does so; an invocation's vec4 of each.
    const keysOfRound = lanes / sharing;
    const rounds = teamKeys / keysOfRound;
    const parts = Math.ceil(keyVectors / sharing);
    // Groups of keys of a row whose weights an invocation computes.
    const tasks = rows * groups;
    const tasksOfLane = Math.ceil(tasks / lanes);
    const groupVectors = groupKeys / 4;
    const eachRow = (text: (r: number) => string) => unroll(rows, text);
    const eachKey = (text: (k: number) => string) => unroll(teamKeys, text);
    const eachGroup = (text: (g: number) => string) => unroll(groups, text);
    const ofGroup = (text: (j: number) => string) => unroll(groupKeys, text);
    const partAt = (row: string | number, key: string) =>
      `team * ${teamStride(division)} + ${row} * ${rowStride(division)} + ${key}`;
    const ifPart = (c: number) =>
      keyVectors % sharing === 0 || c < parts - 1 ? '' : `if (part + ${c * sharing} < ${keyVectors}) `;
    const ifVector = valueVectors === lanes ? '' : `if (lane < ${valueVectors}) `;
    const sumAt = (r: string | number, group: string | number) =>
      `team * ${sumStride(division)} + ${r} * ${groups} + ${group}`;
    const weightsAt = (r: string | number, group: string | number, q: number) =>
      `team * ${weightStride(division)} + (${r} * ${groups} + ${group}) * ${groupVectors} + ${q}`;
    const positionOf = (key: string | number) => `positionIn(head, tile, team * ${teamKeys} + ${key})`;
    // Padding reads some row that exists.
    const rowOfKey = (key: string) => `firstKeyRow + min(tile.x + team * ${teamKeys} + ${key}, lastPosition)`;
    return `
// A workgroup takes all query rows of the heads that read one key head (${rows} at most: all rows of the first head, then of the second,
// …) and one of several chunks of the keys. Its ${count} teams of ${lanes} invocations take ${teamKeys} keys each at a time, keep states of the softmax of
// their own, and merge them in the end.
//
// Keys and values${packed ? ', two float16 a word,' : ''} go from global memory to registers, all loads of ${teamKeys} keys at once. ${sharing} invocations share the product of a row and
// a key; of the values an invocation takes one vec4 of each key, and keeps that of the output of every row. A weight is computed once in a
// team, beside those of ${groupKeys} keys and by their greatest score; all of the team bring sums of a group's weights to the row's.
//
// Workgroup memory: queryRows for the whole run; of each team and row the ${sharing} parts of the products with its keys (scoreParts), then
// the weights, and of each group of keys the greatest score and the sum of the weights (groupSums).
const threads = ${threads};
const tileQueries = ${rows};
const tileKeys = ${count * teamKeys};
var<workgroup> queryRows : array<vec4<f32>, ${rows * keyVectors}>;
var<workgroup> scoreParts : array<f32, ${sharing * partStride(division)}>;
var<workgroup> weights : array<vec4<f32>, ${count * weightStride(division)}>;
var<workgroup> groupSums : array<vec2<f32>, ${count * sumStride(division)}>;
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
        ${unroll(rounds, (i) => `sum${i} = ${'xyzw'.split('').reduce((sum, x) => `fma(query.${x}, key${i}_${c}.${x}, ${sum})`, `sum${i}`)};`)}
      }`,
      )}
      ${unroll(rounds, (i) => `scoreParts[part * ${partStride(division)} + ${partAt(r, `lane / ${sharing} + ${i * keysOfRound}`)}] = sum${i};`)}
    }`,
    )}
    // Barrier: whole products need the parts of others.
    workgroupBarrier();

    // 3. Scores, masked, and the weights of a group of keys.
    ${unroll(
      tasksOfLane,
      (i) => `${tasks % lanes === 0 ? '' : `if (lane + ${i * lanes} < ${tasks}) `}{
      let r = (lane + ${i * lanes}) % ${rows};
      let group = (lane + ${i * lanes}) / ${rows};
      ${scoresOfRow(form, `min(firstRow + r, endRow - 1)`)}
      var groupMax = lowest;
      ${ofGroup(
        (j) => `var score${j} = masked;
      {
        let at = ${partAt('r', `group * ${groupKeys} + ${j}`)};
        let product = (scoreParts[at] + scoreParts[at + ${partStride(division)}]) + (scoreParts[at + ${2 * partStride(division)}] + scoreParts[at + ${3 * partStride(division)}]);
        let position = ${positionOf(`group * ${groupKeys} + ${j}`)};
        score${j} = ${scoreOf(form, 'product', 'position')};
        groupMax = max(groupMax, score${j});
      }`,
      )}
      ${ofGroup((j) => `let weight${j} = exp2(score${j} - groupMax);`)}
      ${unroll(groupVectors, (q) => `weights[${weightsAt('r', 'group', q)}] = vec4<f32>(${[0, 1, 2, 3].map((c) => `weight${4 * q + c}`).join(', ')});`)}
      groupSums[${sumAt('r', 'group')}] = vec2<f32>(groupMax, ${Array.from({length: groupKeys}, (_, j) => `weight${j}`).join(' + ')});
    }`,
    )}
    // Barrier: all invocations of a team read its weights. The parts of the next round are written behind it.
    workgroupBarrier();

    // 4. The weighted sum of values.
    let firstOfTeam = ${positionOf(0)};
    let lastOfTeam = ${positionOf(teamKeys - 1)};
    if (${isNotSeenByAll(form, 'lastOfTeam', 'firstOfTeam')}) {
      ${eachKey((k) => `{ let position = ${positionOf(k)}; ${withholdFrom(form, [`value${k}`], 'position')} }`)}
    }
    ${eachRow(
      (r) => `{
      var newMax = state${r}.maximum;
      ${eachGroup((g) => `let group${g} = groupSums[${sumAt(r, g)}];`)}
      ${eachGroup((g) => `newMax = max(newMax, group${g}.x);`)}
      let rescale = exp2(state${r}.maximum - newMax);
      state${r}.maximum = newMax;
      state${r}.sum *= rescale;
      state${r}.values *= rescale;
      ${eachGroup(
        (g) => `{
        let scale = exp2(group${g}.x - newMax);
        state${r}.sum = fma(scale, group${g}.y, state${r}.sum);
        var sum = vec4<f32>(0.0);
        ${unroll(
          groupVectors,
          (q) => `let weights${q} = weights[${weightsAt(r, g, q)}];
        ${[0, 1, 2, 3].map((c) => `sum = fma(vec4<f32>(weights${q}[${c}]), value${g * groupKeys + 4 * q + c}, sum);`).join('\n        ')}`,
        )}
        state${r}.values = fma(vec4<f32>(scale), sum, state${r}.values);
      }`,
      )}
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
