import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {AttentionProgram, i32} from '../runtime/program.js';
import type {WebGPUCallShape, WebGPUPlan} from '../webgpu_call.js';
import {headVectors, localOf, rowComponents, rowInputs, workgroupIndex, writeRow} from '../wgsl/rows.js';
import {mergeStates, noScores, sinkWeight, stateVectors} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {tileQueries} from '../wgsl/tile.js';
import type {AttentionArithmetic} from './arithmetic.js';
import type {DecodeTeams} from './attend_decode.js';
import {decodeTeams} from './attend_decode.js';
import {chooseAttendTile, chooseFewRowTile} from './attend_tile.js';
import {countQueryTiles} from './attend_form.js';

/*
 * Few query rows over many keys, as in decoding: one workgroup a query tile would leave most of a device idle. So the keys
 * are cut into chunks, each workgroup takes a chunk and writes the state of the softmax (flash-decoding), and a second program
 * combines the states of a row. Without a plan the heads that read one key head share its loads.
 */

/** Workgroups that keep a device busy: with fewer, keys are split. A guess. */
const busyWorkgroups = 128;
/** Workgroups that splitting is to make: several for each multiprocessor of a large device (docs/performance.md, 2026-11-30). */
const wantedWorkgroups = 512;
/** Keys of a chunk at the least, and of all chunks together, so that the second program pays. */
const leastChunk = 128;
const leastKeys = 512;
/** Keys a query row at the least: the prefill of a whole prompt is never split. */
const keysPerRow = 4;
/** Most query rows of a head that leave the matrix units, which multiply far more rows at a time, for splitting. */
const decodedRows = 16;

/** How `AttendProgram` runs. */
export interface AttendOptions {
  tile: Tile;
  /** Output of `Float16RowsProgram` without queries, for float16 products. */
  rows?: TensorInfo;
  plan?: WebGPUPlan;
  /** Into how many the keys are cut; then states of the softmax come out. */
  chunks?: number;
}

/**
 * How a chunk of the keys is attended to, in float32, for bringing all keys to float16 would take longer than reading them: where there are teams,
 * by `AttendDecodeProgram`.
 */
export interface Split {
  tile: Tile;
  chunks: number;
  teams?: DecodeTeams;
}

/** How the keys are split, by the geometry alone; nothing where one workgroup a query tile does. */
export function splitOf(call: WebGPUCallShape, arithmetic: AttentionArithmetic, sparse: boolean): Split | undefined {
  const {geometry, causal} = call;
  const {batch, heads, keyValueHeads, queryLength, queryOffset, keyLength, blockSize, window = Infinity} = geometry;
  const keys = Math.min(causal ? queryOffset + queryLength : keyLength, (causal ? 1 : 2) * window + queryLength);
  const isLong = keys >= leastKeys && keys >= keysPerRow * queryLength;
  if (!isLong || (arithmetic === 'matrix units' && queryLength > decodedRows)) {
    return undefined;
  }
  const whole = chooseAttendTile(call, 'float32', sparse ? blockSize : undefined);
  if (batch * heads * countQueryTiles(geometry, {sparse, split: false}, tileQueries(whole)) >= busyWorkgroups) {
    return undefined;
  }
  const rows = sparse ? Math.min(blockSize, queryLength) : (queryLength * heads) / keyValueHeads;
  const teams = sparse ? undefined : decodeTeams(call);
  const tile = chooseFewRowTile(call, rows) ?? whole;
  const heldHeads = batch * (sparse ? heads : keyValueHeads);
  const queryTiles = heldHeads * countQueryTiles(geometry, {sparse, split: true}, teams?.rows ?? tileQueries(tile));
  const chunks = Math.min(Math.ceil(keys / leastChunk), Math.ceil(wantedWorkgroups / queryTiles));
  return {tile, chunks, teams};
}

/** Chunks of a row that are combined side by side: what is left of 256 invocations when each takes one vec4 of values. */
const combineLanes = (valueDim: number) => Math.max(1, Math.floor(256 / headVectors(valueDim)));

interface CombineVariant extends Pick<BlockGeometry, 'valueDim'> {
  sinks?: true;
}

/** The output, of states: float32 `[batch, heads, queryLength, valueDim]`. */
export class CombineStatesProgram extends AttentionProgram<CombineVariant> {
  /** @param headForms where they hold sinks. */
  constructor(
    states: TensorInfo,
    {batch, heads, queryLength, valueDim}: Pick<BlockGeometry, 'batch' | 'heads' | 'queryLength' | 'valueDim'>,
    headForms?: TensorInfo,
  ) {
    super({
      name: 'CombineStates',
      inputs: rowInputs({states, ...(headForms && {headForms})}),
      uniforms: {queryLength: i32(queryLength)},
      outputShape: [batch, heads, queryLength, valueDim],
      outputComponents: rowComponents(valueDim),
      threads: headVectors(valueDim) * combineLanes(valueDim),
      workgroups: batch * heads * queryLength,
      variant: {valueDim, ...(headForms && {sinks: true})},
    });
  }

  protected shader({valueDim, sinks}: CombineVariant): string {
    const vectors = headVectors(valueDim);
    const lanes = combineLanes(valueDim);
    return `
// A workgroup computes the output of one query row from the states of its chunks: invocation (vector, lane) combines one vec4
// of every ${lanes}-th chunk in registers, and the lanes are combined by way of workgroup memory.
${workgroupIndex}${noScores}${mergeStates(vectors, vectors * lanes)}
${writeRow('writeOutput', valueDim)}

fn main(index : i32) {
  ${localOf(vectors * lanes)}
  let vector = local % ${vectors};
  let lane = local / ${vectors};
  let row = workgroupIndex();
  let exists = row < uniforms.statesShape.x;
  let chunks = uniforms.statesShape.y;
  var state = emptyState;
  for (var chunk = lane; chunk < chunks && exists; chunk += ${lanes}) {
    let first = (row * chunks + chunk) * ${stateVectors(valueDim)};
    let sums = states[first + ${vectors}];
    state = merge(state, State(sums.x, sums.y, states[first + vector]));
  }
  state = mergeLanes(state);
  if (lane == 0 && exists) {
    // A row that saw nothing is zeros.
    writeOutput(row, vector, select(state.values / ${sinks ? `(state.sum + ${sinkWeight('state.maximum', 'f32', 'row / uniforms.queryLength')})` : 'state.sum'}, vec4<f32>(0.0), state.sum == 0.0));
  }
}`;
  }
}
