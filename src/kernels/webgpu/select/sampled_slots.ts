import {sampleStride, tileSlots} from '../../../attention/sampled_estimate.js';

/** The lowest bits of a place, which say its phase. */
const mask = sampleStride - 1;

const windowVariables = `// The first slot that may lie in the window, and how many sample the slots before its run.
var<private> firstSlot : i32;
var<private> firstCoarse : i32;
`;

/**
 * Shader text: which rows and keys a workgroup of `SampledMassProgram` meets (`sampled_estimate.ts`): the rows of its phase, the
 * slots of the normaliser, and those of the sample. A tile of keys holds `blocksOfTile` blocks of `columnsOfBlock` columns each.
 */
export const sampledSlots = (
  blocksOfTile: number,
  columnsOfBlock: number,
  window?: true,
): string => `// The same for all invocations of the workgroup.
var<private> phase : i32;
// Slots that compete, and those of the own segments; the slots of the block of key 0; and how many sample the others.
var<private> competing : i32;
var<private> firstOwn : i32;
var<private> seen : i32;
var<private> firstSink : i32;
var<private> endSink : i32;
var<private> coarse : i32;
${window ? windowVariables : ''}
// The place-th row of the phase in a query block.
fn rowOfPlace(place : i32) -> i32 {
  return ${sampleStride} * place + ((phase - place) & ${mask});
}

// Original index of the key in a slot; of some key where there is none.
fn keyIn(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyLength + max(slot, 0)];
}

// Slots of the normaliser: those of one tile of four of the sample, by turns, then the block of key 0, then the own segments.
fn normaliserSlot(t : i32, column : i32) -> i32 {
  let place = t * tileKeys + column;
  if (place < coarse) {
    let run = ${window ? '(place + firstCoarse)' : 'place'} / ${tileSlots / sampleStride};
    let tile = ${sampleStride} * run + ((-phase - run) & ${mask});
    let slot = ${tileSlots} * tile + ${sampleStride} * (place % ${tileSlots / sampleStride}) + (-phase & ${mask});
    return select(slot, -1, ${window ? 'slot < firstSlot || ' : ''}slot >= competing || (slot >= firstSink && slot < endSink));
  }
  let inSink = firstSink + place - coarse;
  if (inSink < endSink) {
    return inSink;
  }
  let slot = firstOwn + inSink - endSink;
  return select(-1, slot, slot < seen);
}

// The block of a column of the sample, and its slot.
fn sampledBlock(t : i32, column : i32) -> i32 {
  return (t / uniforms.tilesOfBlock) * ${blocksOfTile} + column / ${columnsOfBlock}${window ? ' + firstSlot / uniforms.keyBlockSize' : ''};
}
fn sampledSlot(t : i32, column : i32) -> i32 {
  let first = sampledBlock(t, column) * uniforms.keyBlockSize;
  let place = (t % uniforms.tilesOfBlock) * tileKeys + column % ${columnsOfBlock};
  let slot = first + (-(phase + first) & ${mask}) + ${sampleStride} * place;
  return select(-1, slot, slot < min(first + uniforms.keyBlockSize, competing));
}`;
