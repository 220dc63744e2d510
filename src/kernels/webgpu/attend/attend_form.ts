import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {ExpectedWork} from '../runtime/launches.js';
import type {ProgramSpec, Uniforms} from '../runtime/program_spec.js';
import {i32} from '../runtime/program.js';
import type {JoinedPlan, WebGPUCall, WebGPUPlan} from '../webgpu_call.js';
import type {GridVariant} from '../wgsl/block_grid.js';
import {gridVariant} from '../wgsl/block_grid.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {headInputs, keysVariant} from '../wgsl/key_lengths.js';
import {rowComponents, rowInputs} from '../wgsl/rows.js';
import type {ScoreForm} from '../wgsl/score_hooks.js';
import {scoreForm} from '../wgsl/score_hooks.js';
import {stateVectors} from '../wgsl/softmax_state.js';

/** What the text of the programs of the attend stage depends on, whatever they multiply with. */
export interface AttendForm extends KeysVariant, GridVariant, ScoreForm {
  valueDim: number;
  /** Whether there are sinks, and the program is the one that counts them. */
  sinks?: true;
  /** Whether a plan names the keys, or all of them count. */
  sparse: boolean;
  /** Whether the plan is one buffer. */
  joined?: true;
  /**
   * Whether a workgroup takes a chunk of the keys alone and hands on a state of the softmax (`attend_split.ts`). Without a
   * plan, query rows are then those of all heads that read one key head, one head after the other.
   */
  split: boolean;
  /** Whether a chunk is all keys, as states alone are wanted: then heads are not put together. */
  whole?: true;
}

/** @param chunks of the keys, if states are to come out. */
export function attendForm(call: WebGPUCall, plan?: WebGPUPlan | JoinedPlan, chunks?: number): AttendForm {
  const split = chunks !== undefined;
  return {
    ...keysVariant(call),
    ...gridVariant(call),
    valueDim: call.geometry.valueDim,
    sparse: plan !== undefined,
    ...(plan && 'joinedPlan' in plan && {joined: true}),
    ...scoreForm(call),
    // States of chunks are without: what combines them counts a sink once.
    ...(call.sinks && !split && {sinks: true}),
    split,
    ...(chunks === 1 && !plan && {whole: true}),
  };
}

/** Whether rows of grouped heads stand together. */
export const isPacked = ({sparse, split, whole}: Pick<AttendForm, 'sparse' | 'split' | 'whole'>) =>
  split && !sparse && !whole;

interface WalkOptions {
  tileQueries: number;
  plan?: WebGPUPlan | JoinedPlan;
  /** Into how many the keys are cut. */
  chunks?: number;
  /** What the program takes, in times of the forward pass. Default 1. */
  timesForward?: number;
}

/** What the programs of the attend stage have in common, whatever they multiply with. */
export function attendSpec(
  call: WebGPUCall,
  form: AttendForm,
  options: WalkOptions,
): Omit<ProgramSpec<never>, 'name' | 'variant'> {
  const {query, key, value, geometry} = call;
  const {batch, heads, queryLength, valueDim} = geometry;
  const {inputs, ...walk} = walkSpec(call, form, options);
  return {
    ...walk,
    inputs: {...rowInputs({query, key, value}), ...inputs},
    outputShape: form.split
      ? [batch * heads * queryLength, options.chunks ?? 1, 4 * stateVectors(valueDim)]
      : [batch, heads, queryLength, valueDim],
    outputComponents: form.split ? 4 : rowComponents(valueDim),
  };
}

/** What programs that own query rows and walk over keys have in common: `attendWalk` reads these inputs and uniforms. */
export function walkSpec(
  call: WebGPUCall,
  form: AttendForm,
  {tileQueries, plan, chunks = 1, timesForward = 1}: WalkOptions,
): Pick<ProgramSpec<never>, 'inputs' | 'workgroups' | 'work' | 'call' | 'uniforms'> {
  const {geometry, mask} = call;
  const {batch, heads, keyValueHeads} = geometry;
  const queryTiles = countQueryTiles(geometry, form, tileQueries);
  return {
    inputs: {
      ...plan,
      ...headInputs(call, form),
      mask,
    },
    workgroups: batch * (isPacked(form) ? keyValueHeads : heads) * queryTiles * chunks,
    work: expectedWork(call, form.sparse, timesForward),
    call,
    uniforms: {queryTiles: i32(queryTiles), ...blockUniforms(geometry)},
  };
}

/**
 * What a program takes whose workgroups start with those of the most work: under a causal mask with the last rows, or the first
 * keys. Blocks that are kept grow fewer by less than rows see fewer keys; by how much depends on the input.
 */
export function expectedWork(
  {geometry, causal, expectedTime = 0}: WebGPUCall,
  sparse: boolean,
  timesForward: number,
): ExpectedWork {
  const {queryOffset, queryLength, window = Infinity} = geometry;
  const leastKeys = Math.min(queryOffset, window) / Math.min(queryOffset + queryLength, window);
  const lightest = causal ? Math.max(leastKeys, sparse ? 0.3 : 0) : 1;
  return {time: timesForward * expectedTime, lightest};
}

/** Block sizes of programs that walk by lists. A block longer than all would be walked over in rounds of nothing. */
export const blockUniforms = ({blockSize, keyBlockSize, queryLength, keyLength}: BlockGeometry): Uniforms => ({
  blockSize: i32(Math.min(blockSize, queryLength)),
  keyBlockSize: i32(Math.min(keyBlockSize, keyLength)),
});

/** Query tiles of a head, or of a group of heads. Tiles of blocks do not cross the end of one; the last may have fewer. */
export function countQueryTiles(
  {heads, keyValueHeads, queryLength, blockSize, queryBlocks}: BlockGeometry,
  form: Pick<AttendForm, 'sparse' | 'split' | 'whole'>,
  tileQueries: number,
): number {
  if (!form.sparse) {
    return Math.ceil((queryLength * (isPacked(form) ? heads / keyValueHeads : 1)) / tileQueries);
  }
  const lastRows = queryLength - (queryBlocks - 1) * blockSize;
  return (queryBlocks - 1) * Math.ceil(blockSize / tileQueries) + Math.ceil(lastRows / tileQueries);
}
