import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {peakWeight, summaryRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import {BlockLogSumsProgram} from './block_log_sums.js';
import type {GridVariant} from './block_grid.js';
import {gridFunctions, gridUniforms, gridVariant} from './block_grid.js';
import type {ProxyRangeVariant} from './key_lengths.js';
import {keyEnd, keyLengthsInput, proxyRange, proxyRangeUniforms, proxyRangeVariant} from './key_lengths.js';
import type {KeyOrder} from './permute.js';
import {chooseProbeRows} from './probe_rows.js';
import {AttentionProgram, headVectors, readRow, rowComponents, withScratch, workgroupIndex} from './program.js';
import {ProxyMassProgram} from './score_blocks.js';
import {noScores} from './softmax_state.js';
import {summaryScore, summaryUniforms} from './summary_score.js';
import {chooseTile} from './tile.js';

/**
 * The other form of stage 2, where `probeRows` is not 0 (not in the paper): scores as {@link scoreBlocks} gives them, but
 * shares of all that a query block pays, its own segment included; what is missing to 1 in a row goes to that segment.
 *
 * The score of a block is what the block's rows pay to it in the mean, and a tenth of the most that one of the probe rows
 * pays. The mean is estimated by summaries, or, with `exactLastBlock`, known from stage 1.
 *
 * @param order with the summaries of the key blocks, variances included (`summarize_blocks.ts`).
 */
export function probedScores(
  op: string,
  backend: WebGPUBackend,
  query: TensorInfo,
  key: TensorInfo,
  order: KeyOrder & {summaries: TensorInfo},
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
  probeRows: number,
  keyLengths?: TensorInfo,
): TensorInfo {
  const {keyScores, keyIndices, summaries} = order;
  const tile = chooseTile(op, backend, geometry.headDim, geometry.blockSize);
  return withScratch(backend, (scratch) => {
    const logSums = (probes?: TensorInfo) =>
      scratch(
        new BlockLogSumsProgram(query, key, keyIndices, geometry, tile, scale, causal, probes, keyLengths).run(backend),
      );
    const probes = scratch(chooseProbeRows(backend, query, geometry, probeRows));
    const probeLogSums = logSums(probes);
    // Without a causal mask every block competes.
    const ownLogSums = causal ? logSums() : undefined;
    const proxyMass =
      exactLastBlock && causal
        ? scratch(new ProxyMassProgram(keyScores, keyIndices, geometry).run(backend))
        : undefined;
    const parts = {query, summaries, probeLogSums, ownLogSums, proxyMass, keyLengths};
    return new ProbedScoresProgram(parts, geometry, scale, causal).run(backend);
  });
}

interface ProbedScoresInputs {
  query: TensorInfo;
  summaries: TensorInfo;
  probeLogSums: TensorInfo;
  ownLogSums?: TensorInfo;
  proxyMass?: TensorInfo;
  keyLengths?: TensorInfo;
}

interface ProbedScoresVariant extends GridVariant, ProxyRangeVariant {
  headDim: number;
  exactLastBlock: boolean;
}

const threads = 128;

/**
 * Fours of rows that are estimated at a time: each reading of a summary serves them all, as far as their queries fit into
 * 8 KiB of workgroup memory.
 */
const foursAtOnce = (headDim: number) => [4, 2].find((fours) => fours * headVectors(headDim) * 64 <= 8192) ?? 1;

/** float32 `[batch, heads, queryBlocks, keyBlocks]`: the scores. */
export class ProbedScoresProgram extends AttentionProgram<ProbedScoresVariant> {
  constructor(inputs: ProbedScoresInputs, geometry: BlockGeometry, scale: number, causal: boolean) {
    const {batch, heads, keyLength, headDim, queryBlocks, keyBlocks} = geometry;
    const grid = gridVariant(geometry, causal);
    const {ownLogSums, proxyMass, keyLengths} = inputs;
    const components = rowComponents(headDim);
    super({
      inputs: {
        query: {tensor: inputs.query, components},
        summaries: {tensor: inputs.summaries, components},
        probeLogSums: {tensor: inputs.probeLogSums, components: 1},
        ...(ownLogSums && {ownLogSums: {tensor: ownLogSums, components: 1}}),
        ...(proxyMass && {proxyMass: {tensor: proxyMass, components: 1}}),
        ...keyLengthsInput(keyLengths),
      },
      outputShape: [batch, heads, queryBlocks, keyBlocks],
      outputType: 'float32',
      threads,
      workgroups: batch * heads * queryBlocks,
      uniforms: {
        ...gridUniforms(geometry, grid),
        ...proxyRangeUniforms(geometry, causal, keyLengths),
        ...summaryUniforms(scale),
        keyBlocks: {type: 'i32', value: keyBlocks},
        keyLength: {type: 'i32', value: keyLength},
      },
      variant: {
        headDim,
        exactLastBlock: proxyMass !== undefined,
        ...grid,
        ...proxyRangeVariant(geometry, causal, keyLengths),
      },
    });
  }

  protected shader({headDim, exactLastBlock, padded, positions, ...grid}: ProbedScoresVariant): string {
    const vectors = headVectors(headDim);
    const fours = foursAtOnce(headDim);
    const own = (rows: string, k: number) => `ownLogSums[(${rows} + ${k}) * uniforms.ownLogSumsShape.z + i]`;
    const four = (value: (k: number) => string) => [0, 1, 2, 3].map(value).join(', ');
    return `
// A workgroup computes the scores of one query block; an invocation computes every ${threads}th key block. Rows of queries are
// taken by fours, ${fours} at a time, as the columns of matrices in workgroup memory: a vec4 holds the same of four rows. The
// result itself adds up what they pay to a key block, each value touched by one invocation alone, so that only the sums over
// key blocks need workgroup memory and barriers. Estimates of an invocation's first key block stay in registers, so that up to
// ${threads} key blocks none is computed twice.
${workgroupIndex}${gridFunctions(grid)}${padded ? keyEnd('uniforms.outShape.y', 'uniforms.keyLength') : ''}${exactLastBlock ? proxyRange(positions, 'uniforms.queryShape.z') : ''}
${readRow('readQuery', 'query', headDim)}
${readRow('readSummary', 'summaries', headDim)}
${summaryScore}${noScores}
// Column j of entry ${fours} v + f: dimension 4 v + j of the f-th four queries, scaled.
var<workgroup> queries : array<mat4x4<f32>, ${fours * vectors}>;
// Key blocks that compete, and key blocks that the query block may see: [0, x) and [0, y). Whether the mean is known: z.
var<workgroup> counts : vec3<i32>;

alias Estimates = array<vec4<f32>, ${fours}>;

// log2 of what the rows pay to a block.
fn scoresOf(head : i32, block : i32, end : i32) -> Estimates {
  let meanRow = head * uniforms.keyBlocks + block;
  let varianceRow = uniforms.outShape.x * uniforms.outShape.y * uniforms.keyBlocks + meanRow;
  let counts = vec4<f32>(countOf(block, end));
  var byMean = Estimates();
  var byVariance = Estimates();
  for (var v = 0; v < ${vectors}; v++) {
    let mean = readSummary(meanRow, v);
    let variance = readSummary(varianceRow, v);
    ${each(
      fours,
      (f) => `{
      let q = queries[${fours} * v + ${f}];
      byMean[${f}] += q * mean;
      byVariance[${f}] += mat4x4<f32>(${four((k) => `q[${k}] * q[${k}]`)}) * variance;
    }`,
    )}
  }
  return Estimates(${Array.from({length: fours}, (_, f) => `summaryScore(byMean[${f}], byVariance[${f}], counts)`).join(', ')});
}

var<workgroup> maxima : array<vec4<f32>, ${threads}>;
var<workgroup> sums : array<vec4<f32>, ${threads}>;

// log2 of the sum of exp2 over all invocations, from maxima and sums of their own.
fn logSum(localMax : vec4<f32>, localSum : vec4<f32>) -> vec4<f32> {
  let local = i32(localIndex);
  maxima[local] = localMax;
  sums[local] = localSum;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = ${threads / 2}; stride > 0; stride /= 2) {
    if (local < stride) {
      let most = max(maxima[local], maxima[local + stride]);
      sums[local] = sums[local] * exp2(maxima[local] - most) + sums[local + stride] * exp2(maxima[local + stride] - most);
      maxima[local] = most;
    }
    workgroupBarrier();
  }
  let total = select(maxima[0] + log2(sums[0]), vec4<f32>(masked), sums[0] == vec4<f32>(0.0));
  // Barrier: the next sum overwrites both.
  workgroupBarrier();
  return total;
}

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.y;
  let row = workgroupIndex();
  let head = row / uniforms.outShape.z;
  let queryBlock = row % uniforms.outShape.z;
  let exists = head < uniforms.outShape.x * heads;
  let end = select(0, ${padded ? 'keyEnd(min(head, uniforms.outShape.x * heads - 1))' : 'uniforms.keyLength'}, exists);
  if (local == 0) {
    let blocksWithKeys = (end + uniforms.blockSize - 1) / uniforms.blockSize;
    let competing = min(scoredBlocks(queryBlock), blocksWithKeys);
    ${
      exactLastBlock
        ? `let proxies = proxyRange(min(head, uniforms.outShape.x * heads - 1));
    let known = proxies.x < proxies.y && queryBlock >= proxies.x / uniforms.blockSize;`
        : 'let known = false;'
    }
    counts = select(vec3<i32>(0), vec3<i32>(competing, visibleBlocks(queryBlock), select(0, 1, known)), exists);
  }
  // The branches and loops hold barriers, so all invocations must agree on them: hence the uniform load.
  let blocks = workgroupUniformLoad(&counts);
  let competing = blocks.x;
  let scores = row * uniforms.keyBlocks;
  if (exists) {
    for (var i = local; i < uniforms.keyBlocks; i += ${threads}) {
      result[scores + i] = 0.0;
    }
  }

  // 1. The largest share that a probe row pays, four rows at a time; rows that do not exist pay nothing.
  let probeRows = uniforms.probeLogSumsShape.y / uniforms.outShape.z;
  let visible = min(blocks.y, select(0, uniforms.keyBlocks, competing > 0));
  for (var firstProbe = 0; firstProbe < probeRows; firstProbe += 4) {
    let first = (row * probeRows + firstProbe) * uniforms.keyBlocks;
    var localMax = vec4<f32>(masked);
    var localSum = vec4<f32>(0.0);
    for (var i = local; i < visible; i += ${threads}) {
      let x = fourProbes(first + i, probeRows - firstProbe);
      let newMax = max(localMax, x);
      localSum = localSum * exp2(localMax - newMax) + select(exp2(x - newMax), vec4<f32>(0.0), x == vec4<f32>(masked));
      localMax = newMax;
    }
    let total = logSum(localMax, localSum);
    for (var i = local; i < competing; i += ${threads}) {
      let x = fourProbes(first + i, probeRows - firstProbe);
      let shares = select(exp2(x - total), vec4<f32>(0.0), x == vec4<f32>(masked));
      result[scores + i] = max(result[scores + i], ${peakWeight} * max(max(shares.x, shares.y), max(shares.z, shares.w)));
    }
  }

  // 2. The mean share of all rows: of evenly spaced ones by summaries, or known.
  if (blocks.z == 0 && competing > 0) {
    let firstRow = queryBlock * uniforms.blockSize;
    let rowCount = min(uniforms.blockSize, uniforms.queryShape.z - firstRow);
    for (var firstEven = 0; firstEven < ${summaryRows}; firstEven += ${4 * fours}) {
      for (var i = local; i < ${fours * vectors}; i += ${threads}) {
        let v = i / ${fours};
        let firstOfFour = firstEven + 4 * (i % ${fours});
        queries[i] = transpose(mat4x4<f32>(
          ${[0, 1, 2, 3]
            .map(
              (k) =>
                `uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstOfFour + ${k + 1}) * rowCount) / ${summaryRows} - 1), v)`,
            )
            .join(',\n          ')}));
      }
      // Barrier: scores read the queries that others loaded.
      workgroupBarrier();
      var localMax : Estimates;
      var localSum = Estimates();
      ${each(fours, (f) => `localMax[${f}] = vec4<f32>(masked);`)}
      var firstScores : Estimates;
      for (var i = local; i < competing; i += ${threads}) {
        let x = scoresOf(head, i, end);
        if (i == local) {
          firstScores = x;
        }
        ${each(
          fours,
          (f) => `{
          let newMax = max(localMax[${f}], x[${f}]);
          localSum[${f}] = localSum[${f}] * exp2(localMax[${f}] - newMax) + exp2(x[${f}] - newMax);
          localMax[${f}] = newMax;
        }`,
        )}
      }${
        grid.causal
          ? `
      for (var i = local; i < blocks.y - scoredBlocks(queryBlock); i += ${threads}) {
        ${each(
          fours,
          (f) => `{
          let ownRows = row * ${summaryRows} + firstEven + ${4 * f};
          let x = vec4<f32>(${four((k) => own('ownRows', k))});
          let newMax = max(localMax[${f}], x);
          localSum[${f}] = localSum[${f}] * exp2(localMax[${f}] - newMax) + select(exp2(x - newMax), vec4<f32>(0.0), x == vec4<f32>(masked));
          localMax[${f}] = newMax;
        }`,
        )}
      }`
          : ''
      }
      ${each(fours, (f) => `let total${f} = logSum(localMax[${f}], localSum[${f}]);`)}
      for (var i = local; i < competing; i += ${threads}) {
        var x = firstScores;
        if (i != local) {
          x = scoresOf(head, i, end);
        }
        result[scores + i] += dot(${Array.from({length: fours}, (_, f) => `exp2(x[${f}] - total${f})`).join(' + ')}, vec4<f32>(${1 / summaryRows}));
      }
      // Barrier: the next queries replace these.
      workgroupBarrier();
    }
  }
  for (var i = local; i < competing; i += ${threads}) {
    ${exactLastBlock ? 'if (blocks.z != 0) { result[scores + i] += proxyMass[head * uniforms.keyBlocks + i]; }' : ''}
    result[scores + i] /= ${1 + peakWeight};
  }
}

// What four probe rows pay to a block, from the first of them on, as far as there are some.
fn fourProbes(at : i32, rows : i32) -> vec4<f32> {
  var x = vec4<f32>(masked);
  for (var k = 0; k < min(4, rows); k++) {
    x[k] = probeLogSums[at + k * uniforms.keyBlocks];
  }
  return x;
}`;
  }
}
