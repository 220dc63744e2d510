import type {TensorInfo} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {SkippedBlocks} from './attend_remainder.js';
import type {GridVariant} from './block_grid.js';
import {gridFunctions, gridUniforms, gridVariant} from './block_grid.js';
import {keyEnd, keyLengthsInput} from './key_lengths.js';
import type {ProgramSpec} from './program.js';
import {AttentionProgram, headVectors, keyRow, readRow, rowComponents, workgroupIndex, writeRow} from './program.js';
import {stateVectors} from './softmax_state.js';
import {summaryUniforms} from './summary_score.js';

/*
 * Gradients of the blocks that are skipped, where these count by their summaries (`block_estimate.ts`). To a query row such a
 * block is a key with a value, whose score has a part of the mean key and one of the variance, the latter constant where it
 * is capped. Their weights are part of the statistics of a row; each query row adds what they move to its gradient; what
 * a block's mean and variance would have to change by is added up over the rows that skip it, and then goes to its n keys:
 * d key = (d mean + 2 · d variance · (key − mean)) / n, d value = d mean / n.
 */

const threads = 64;

/** The statistics of the gradients, with what a row pays to skipped blocks, a state of the softmax, in its sum. */
export class AddSkippedProgram extends AttentionProgram<{stride: number}> {
  constructor(statistics: TensorInfo, seen: TensorInfo, {batch, heads, queryLength, valueDim}: BlockGeometry) {
    super({
      inputs: {statistics: {tensor: statistics, components: 4}, seen: {tensor: seen, components: 4}},
      outputShape: statistics.shape,
      outputType: 'float32',
      outputComponents: 4,
      threads,
      workgroups: Math.ceil((batch * heads * queryLength) / threads),
      uniforms: {},
      variant: {stride: stateVectors(valueDim)},
    });
  }

  protected shader({stride}: {stride: number}): string {
    return `
// An invocation takes a row.
${workgroupIndex}
fn main(index : i32) {
  let row = workgroupIndex() * ${threads} + i32(localIndex);
  if (row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z) {
    var known = statistics[row];
    let skipped = seen[row * ${stride} + ${stride - 1}].xy;
    if (skipped.y > 0.0) {
      let logSum = skipped.x + log2(skipped.y);
      // A last position of -1 means that the row sees no key of its blocks.
      let larger = select(max(known.x, logSum), logSum, known.z < 0.0);
      let kept = select(exp2(known.x - larger), 0.0, known.z < 0.0);
      known.x = larger + log2(kept + exp2(logSum - larger));
    }
    result[row] = known;
  }
}`;
  }
}

interface SkippedVariant extends GridVariant {
  headDim: number;
  valueDim: number;
}

interface Rows {
  query: TensorInfo;
  dy: TensorInfo;
  statistics: TensorInfo;
}

function skippedInputs(
  {query, dy, statistics}: Rows,
  {summaries, valueMeans}: SkippedBlocks,
): ProgramSpec<never>['inputs'] {
  const components = rowComponents(query.shape[3]);
  const valueComponents = rowComponents(dy.shape[3]);
  return {
    query: {tensor: query, components},
    dy: {tensor: dy, components: valueComponents},
    statistics: {tensor: statistics, components: 4},
    summaries: {tensor: summaries, components},
    valueMeans: {tensor: valueMeans, components: valueComponents},
  };
}

const skippedUniforms = (
  geometry: BlockGeometry,
  grid: GridVariant,
  scale: number,
): ProgramSpec<never>['uniforms'] => ({
  ...gridUniforms(geometry, grid),
  ...summaryUniforms(scale),
  scale: {type: 'f32', value: scale},
  keyBlocks: {type: 'i32', value: geometry.keyBlocks},
});

/** Shader text: what a skipped block has to do with a query row. */
const skippedText = ({headDim, valueDim, ...grid}: SkippedVariant) => `
${workgroupIndex}${gridFunctions(grid)}
${readRow('readQuery', 'query', headDim)}
${readRow('readDy', 'dy', valueDim)}
${readRow('readSummary', 'summaries', headDim)}
${readRow('readValueMean', 'valueMeans', valueDim)}

struct Skipped {
  weight : f32,
  // Gradient by the score, and by its part of the variance.
  score : f32,
  correction : f32,
};

// Block of [batch * heads, keyBlocks]; its mean is in row \`block\` of the summaries, its variance in row \`varianceRow\`.
fn skippedBlock(queryRow : i32, block : i32, varianceRow : i32) -> Skipped {
  let known = statistics[queryRow];
  var byMean = 0.0;
  var byVariance = 0.0;
  for (var vector = 0; vector < ${headVectors(headDim)}; vector++) {
    let q = uniforms.logitScale * readQuery(queryRow, vector);
    byMean += dot(q, readSummary(block, vector));
    byVariance += dot(q * q, readSummary(varianceRow, vector));
  }
  var product = 0.0;
  for (var vector = 0; vector < ${headVectors(valueDim)}; vector++) {
    product += dot(readDy(queryRow, vector), readValueMean(block, vector));
  }
  let correction = uniforms.varianceScale * byVariance;
  let first = (block % uniforms.keyBlocks) * uniforms.blockSize;
  let count = min(f32(uniforms.blockSize), known.w - f32(first));
  let weight = exp2(byMean + min(correction, uniforms.varianceCap) + log2(count) - known.x);
  let score = weight * (product - known.y);
  return Skipped(weight, score, select(0.0, score, correction < uniforms.varianceCap));
}`;

/** The gradient by the query, shaped as query: that of the kept blocks, and what the skipped ones add. */
export class RemainderQueryProgram extends AttentionProgram<SkippedVariant> {
  constructor(
    rows: Rows & {keptGradient: TensorInfo},
    skipped: SkippedBlocks & {blockLists: TensorInfo},
    geometry: BlockGeometry,
    scale: number,
    causal: boolean,
  ) {
    const {batch, heads, queryLength, headDim, valueDim} = geometry;
    const grid = gridVariant(geometry, causal);
    const components = rowComponents(headDim);
    super({
      inputs: {
        ...skippedInputs(rows, skipped),
        keptGradient: {tensor: rows.keptGradient, components},
        blockLists: {tensor: skipped.blockLists, components: 1},
      },
      outputShape: rows.query.shape,
      outputType: 'float32',
      outputComponents: components,
      threads,
      workgroups: Math.ceil((batch * heads * queryLength) / threads),
      uniforms: skippedUniforms(geometry, grid, scale),
      variant: {headDim, valueDim, ...grid},
    });
  }

  protected shader(variant: SkippedVariant): string {
    const {headDim} = variant;
    const vectors = headVectors(headDim);
    return `
// An invocation owns a query row and walks over the blocks that the row skips: nothing is shared.
${skippedText(variant)}
${readRow('readKept', 'keptGradient', headDim)}
${writeRow('writeGradient', headDim)}
fn main(index : i32) {
  let queryRow = workgroupIndex() * ${threads} + i32(localIndex);
  let allHeads = uniforms.outShape.x * uniforms.outShape.y;
  if (queryRow >= allHeads * uniforms.outShape.z) {
    return;
  }
  let head = queryRow / uniforms.outShape.z;
  let queryBlock = (queryRow % uniforms.outShape.z) / uniforms.blockSize;
  let list = (head * uniforms.blockListsShape.z + queryBlock) * (uniforms.keyBlocks + 1);
  let listEnd = list + 1 + blockLists[list];
  var entry = list + 1;
  let end = i32(statistics[queryRow].w);
  let competing = min(scoredBlocks(queryBlock), (end + uniforms.blockSize - 1) / uniforms.blockSize);
  var gradient = array<vec4<f32>, ${vectors}>();
  for (var keyBlock = 0; keyBlock < competing; keyBlock++) {
    // The list is in ascending order.
    if (entry < listEnd && blockLists[entry] == keyBlock) {
      entry++;
    } else {
      let block = head * uniforms.keyBlocks + keyBlock;
      let varianceRow = allHeads * uniforms.keyBlocks + block;
      let x = skippedBlock(queryRow, block, varianceRow);
      for (var vector = 0; vector < ${vectors}; vector++) {
        let q = uniforms.scale * readQuery(queryRow, vector);
        gradient[vector] += x.score * readSummary(block, vector) + x.correction * q * readSummary(varianceRow, vector);
      }
    }
  }
  for (var vector = 0; vector < ${vectors}; vector++) {
    writeGradient(queryRow, vector, readKept(queryRow, vector) + uniforms.scale * gradient[vector]);
  }
}`;
  }
}

/** Vectors of a block in the output of `RemainderKeyProgram`: of its mean and variance, and of its values' mean. */
const blockVectors = (headDim: number, valueDim: number) => 2 * headVectors(headDim) + headVectors(valueDim);

/**
 * Gradients by the summaries: float32 `[batch * heads, keyBlocks, 4 * blockVectors]`, each filled up with zeros to whole vec4.
 */
export class RemainderKeyProgram extends AttentionProgram<SkippedVariant> {
  constructor(
    rows: Rows,
    skipped: SkippedBlocks & {kept: TensorInfo},
    geometry: BlockGeometry,
    scale: number,
    causal: boolean,
  ) {
    const {batch, heads, queryLength, keyBlocks, headDim, valueDim} = geometry;
    const grid = gridVariant(geometry, causal);
    super({
      inputs: {...skippedInputs(rows, skipped), kept: {tensor: skipped.kept, components: 1}},
      outputShape: [batch * heads, keyBlocks, 4 * blockVectors(headDim, valueDim)],
      outputType: 'float32',
      outputComponents: 4,
      threads,
      workgroups: batch * heads * keyBlocks,
      uniforms: {...skippedUniforms(geometry, grid, scale), queryLength: {type: 'i32', value: queryLength}},
      variant: {headDim, valueDim, ...grid},
    });
  }

  protected shader(variant: SkippedVariant): string {
    const {headDim, valueDim} = variant;
    const [vectors, valueVectors] = [headVectors(headDim), headVectors(valueDim)];
    // Columns of an invocation: of queries first, then of dy.
    const columns = Math.ceil((vectors + valueVectors) / threads);
    const eachColumn = (text: (c: number, column: string) => string) =>
      each(columns, (c) => text(c, `column${c}`), '\n        ');
    return `
// A workgroup owns a key block and walks over the query rows, ${threads} at a time. Each invocation first computes what the
// block is to one of the rows, for workgroup memory; then it adds up, in registers, its vec4 columns of all of them.
${skippedText(variant)}
var<workgroup> found : array<vec4<f32>, ${threads}>;

fn main(index : i32) {
  let local = i32(localIndex);
  let allHeads = uniforms.outShape.x;
  let keyBlock = workgroupIndex() % uniforms.keyBlocks;
  let exists = workgroupIndex() < allHeads * uniforms.keyBlocks;
  let block = min(workgroupIndex(), allHeads * uniforms.keyBlocks - 1);
  let head = block / uniforms.keyBlocks;
  let firstQueryRow = head * uniforms.queryLength;
  let queryBlocks = uniforms.keptShape.z;
  ${each(
    columns,
    (c) => `let column${c} = local + ${c * threads};
  var means${c} = vec4<f32>(0.0);
  var variances${c} = vec4<f32>(0.0);`,
    '\n  ',
  )}
  for (var first = 0; first < uniforms.queryLength; first += ${threads}) {
    // 1. A row of each invocation; zeros if it does not skip the block.
    let queryRow = firstQueryRow + min(first + local, uniforms.queryLength - 1);
    let queryBlock = (queryRow - firstQueryRow) / uniforms.blockSize;
    let isSkipped = first + local < uniforms.queryLength
      && keyBlock < scoredBlocks(queryBlock)
      && kept[(head * queryBlocks + queryBlock) * uniforms.keyBlocks + keyBlock] == 0
      && f32(keyBlock * uniforms.blockSize) < statistics[queryRow].w;
    found[local] = vec4<f32>(0.0);
    if (isSkipped) {
      let x = skippedBlock(queryRow, block, allHeads * uniforms.keyBlocks + block);
      found[local] = vec4<f32>(x.weight, x.score, x.correction, 1.0);
    }
    // Barrier: sums read the rows of others.
    workgroupBarrier();

    // 2. Columns of all rows.
    for (var i = 0; i < min(${threads}, uniforms.queryLength - first); i++) {
      let x = found[i];
      let row = firstQueryRow + first + i;
      if (x.w != 0.0) {
        ${eachColumn(
          (c, column) => `if (${column} < ${vectors}) {
          let q = readQuery(row, ${column});
          means${c} += x.y * q;
          variances${c} += x.z * q * q;
        } else if (${column} < ${vectors + valueVectors}) {
          means${c} += x.x * readDy(row, ${column} - ${vectors});
        }`,
        )}
      }
    }
    // Barrier: the next rows overwrite these.
    workgroupBarrier();
  }
  let at = block * ${blockVectors(headDim, valueDim)};
  if (exists) {
    ${eachColumn(
      (c, column) => `if (${column} < ${vectors}) {
      result[at + ${column}] = uniforms.scale * means${c};
      result[at + ${vectors} + ${column}] = 0.5 * uniforms.scale * uniforms.scale * variances${c};
    } else if (${column} < ${vectors + valueVectors}) {
      result[at + ${vectors} + ${column}] = means${c};
    }`,
    )}
  }
}`;
  }
}

interface SpreadVariant {
  headDim: number;
  valueDim: number;
  padded: boolean;
}

/** What `GradientKeyProgram` gives, with what each key and value owes to the summary of its block added. */
export class SpreadOverKeysProgram extends AttentionProgram<SpreadVariant> {
  constructor(
    gradients: TensorInfo,
    sums: TensorInfo,
    key: TensorInfo,
    {summaries, keyIndices}: SkippedBlocks & {keyIndices: TensorInfo},
    {heads, blockSize, keyBlocks, headDim, valueDim}: BlockGeometry,
    keyLengths?: TensorInfo,
  ) {
    const one = (tensor: TensorInfo) => ({tensor, components: 1 as const});
    super({
      inputs: {
        gradients: one(gradients),
        sums: one(sums),
        key: one(key),
        summaries: one(summaries),
        keyIndices: one(keyIndices),
        ...keyLengthsInput(keyLengths),
      },
      outputShape: gradients.shape,
      outputType: 'float32',
      threads,
      workgroups: Math.ceil(util.sizeFromShape(gradients.shape) / threads),
      uniforms: {
        heads: {type: 'i32', value: heads},
        blockSize: {type: 'i32', value: blockSize},
        keyBlocks: {type: 'i32', value: keyBlocks},
      },
      variant: {headDim, valueDim, padded: keyLengths !== undefined},
    });
  }

  protected shader({headDim, valueDim, padded}: SpreadVariant): string {
    const size = headDim + valueDim;
    const vectors = headVectors(headDim);
    return `
// An invocation takes one value of a key, or of a value, at its place in the permuted order, and writes it where the key
// stands.
${workgroupIndex}
${keyRow}
${padded ? keyEnd('uniforms.heads', 'uniforms.keyShape.z') : ''}
fn main(index : i32) {
  let i = workgroupIndex() * ${threads} + i32(localIndex);
  let keyLength = uniforms.keyShape.z;
  let allHeads = uniforms.keyIndicesShape.x * uniforms.keyIndicesShape.y;
  if (i >= allHeads * keyLength * ${size}) {
    return;
  }
  let column = i % ${size};
  let place = (i / ${size}) % keyLength;
  let head = i / (${size} * keyLength);
  let position = keyIndices[head * keyLength + place];
  let row = head * keyLength + position;
  let at = select(allHeads * keyLength * ${headDim} + row * ${valueDim} + column - ${headDim}, row * ${headDim} + column, column < ${headDim});
  var gradient = gradients[at];
  let end = ${padded ? 'keyEnd(head)' : 'keyLength'};
  if (position < end) {
    let keyBlock = place / uniforms.blockSize;
    let block = head * uniforms.keyBlocks + keyBlock;
    let count = f32(min(uniforms.blockSize, end - keyBlock * uniforms.blockSize));
    let sumsAt = block * ${4 * blockVectors(headDim, valueDim)};
    if (column < ${headDim}) {
      let x = key[keyRow(head, uniforms.heads, position) * ${headDim} + column];
      let fromMean = x - summaries[block * ${headDim} + column];
      gradient += (sums[sumsAt + column] + 2.0 * fromMean * sums[sumsAt + ${4 * vectors} + column]) / count;
    } else {
      gradient += sums[sumsAt + ${8 * vectors} + column - ${headDim}] / count;
    }
  }
  result[at] = gradient;
}`;
  }
}
