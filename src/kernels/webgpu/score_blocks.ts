import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock} from '../block_geometry.js';
import type {KeyOrder} from './permute.js';
import {
  AttentionProgram,
  headVectors,
  keyRow,
  readRow,
  rowComponents,
  withScratch,
  workgroupIndex,
  writeRow,
} from './program.js';
import {workgroupReduce} from './workgroup_reduce.js';

/**
 * Stage 2, score blocks (paper section 3.3): float32 `[batch, heads, queryBlocks, keyBlocks]`, the share of attention that a
 * query block is expected to pay to each key block that competes for it, 0 elsewhere; a row adds up to 1, or to 0 where
 * nothing competes.
 *
 * The estimate is a softmax over products of mean queries and mean keys. With `exactLastBlock`, query blocks that hold
 * proxy rows take the attention that those rows pay, known from stage 1; that needs a causal mask, because stage 1
 * knows complete segments alone.
 */
export function scoreBlocks(
  backend: WebGPUBackend,
  query: TensorInfo,
  key: TensorInfo,
  {keyScores, keyIndices}: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
): TensorInfo {
  return withScratch(backend, (scratch) => {
    const pooled = scratch(new PoolBlocksProgram(query, key, keyIndices, geometry).run(backend));
    const proxyMass =
      exactLastBlock && causal
        ? scratch(new ProxyMassProgram(keyScores, keyIndices, geometry).run(backend))
        : undefined;
    return new BlockScoresProgram(pooled, geometry, scale, causal, proxyMass).run(backend);
  });
}

interface PoolVariant {
  headDim: number;
}

/** Rows of a block that are added up side by side: what is left of 64 invocations when each takes one vec4 column. */
const poolLanes = (headDim: number) => Math.max(1, Math.floor(64 / headVectors(headDim)));

/**
 * float32 `[2 * batch, heads, blocks, headDim]`: the mean query of each block, then the mean key of each block of the
 * permuted order, which differs by head.
 */
export class PoolBlocksProgram extends AttentionProgram<PoolVariant> {
  constructor(query: TensorInfo, key: TensorInfo, keyIndices: TensorInfo, geometry: BlockGeometry) {
    const {batch, heads, headDim, blockSize, keyBlocks} = geometry;
    const components = rowComponents(headDim);
    super({
      inputs: {
        query: {tensor: query, components},
        key: {tensor: key, components},
        keyIndices: {tensor: keyIndices, components: 1},
      },
      outputShape: [2 * batch, heads, keyBlocks, headDim],
      outputType: 'float32',
      outputComponents: components,
      threads: headVectors(headDim) * poolLanes(headDim),
      workgroups: 2 * batch * heads * keyBlocks,
      uniforms: {blockSize: {type: 'i32', value: blockSize}},
      variant: {headDim},
    });
  }

  protected shader({headDim}: PoolVariant): string {
    const vectors = headVectors(headDim);
    const lanes = poolLanes(headDim);
    return `
// A workgroup computes the mean of one block's rows: invocation (vector, lane) adds up one vec4 column over every
// ${lanes}-th row, and the lanes are added up in workgroup memory. A partial block is still divided by the block size.
${workgroupIndex}
${keyRow}
${readRow('readQuery', 'query', headDim)}
${readRow('readKey', 'key', headDim)}
${writeRow('writePooled', headDim)}
var<workgroup> laneSums : array<vec4<f32>, ${vectors * lanes}>;

fn main(index : i32) {
  let vector = i32(localIndex) % ${vectors};
  let lane = i32(localIndex) / ${vectors};
  let heads = uniforms.outShape.y;
  let blocks = uniforms.outShape.z;
  let length = uniforms.queryShape.z;
  let allHeads = uniforms.queryShape.x * heads;
  let block = workgroupIndex() % blocks;
  let head = workgroupIndex() / blocks;
  let exists = head < 2 * allHeads;
  let end = select(0, min((block + 1) * uniforms.blockSize, length), exists);
  var sum = vec4<f32>(0.0);
  for (var i = block * uniforms.blockSize + lane; i < end; i += ${lanes}) {
    if (head < allHeads) {
      sum += readQuery(head * length + i, vector);
    } else {
      sum += readKey(keyRow(head - allHeads, heads, keyIndices[(head - allHeads) * length + i]), vector);
    }
  }
  laneSums[i32(localIndex)] = sum;
  // Barrier: the first lane adds up what all lanes wrote.
  workgroupBarrier();
  if (lane == 0 && exists) {
    for (var i = 1; i < ${lanes}; i++) {
      sum += laneSums[i * ${vectors} + vector];
    }
    writePooled(workgroupIndex(), vector, sum / f32(uniforms.blockSize));
  }
}`;
  }
}

/** float32 `[batch, heads, keyBlocks]`: attention of the proxy rows to each block of permuted keys in complete segments. */
export class ProxyMassProgram extends AttentionProgram<object> {
  constructor(keyScores: TensorInfo, keyIndices: TensorInfo, {batch, heads, blockSize, keyBlocks}: BlockGeometry) {
    super({
      inputs: {keyScores: {tensor: keyScores, components: 1}, keyIndices: {tensor: keyIndices, components: 1}},
      outputShape: [batch, heads, keyBlocks],
      outputType: 'float32',
      threads: 64,
      workgroups: batch * heads * keyBlocks,
      uniforms: {blockSize: {type: 'i32', value: blockSize}},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// A workgroup adds up the scores of one block's keys.
${workgroupIndex}
${workgroupReduce(64)}
fn main(index : i32) {
  let blocks = uniforms.outShape.z;
  let block = workgroupIndex() % blocks;
  let head = workgroupIndex() / blocks;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let end = select(0, min((block + 1) * uniforms.blockSize, uniforms.keyScoresShape.z), exists);
  var sum = 0.0;
  for (var i = block * uniforms.blockSize + i32(localIndex); i < end; i += 64) {
    sum += keyScores[head * uniforms.keyScoresShape.z + keyIndices[head * uniforms.keyIndicesShape.z + i]];
  }
  let mass = workgroupSum(sum);
  if (localIndex == 0u && exists) {
    result[workgroupIndex()] = mass;
  }
}`;
  }
}

interface BlockScoresVariant extends PoolVariant {
  causal: boolean;
  exactLastBlock: boolean;
}

/** float32 `[batch, heads, queryBlocks, keyBlocks]`: the scores. */
export class BlockScoresProgram extends AttentionProgram<BlockScoresVariant> {
  constructor(pooled: TensorInfo, geometry: BlockGeometry, scale: number, causal: boolean, proxyMass?: TensorInfo) {
    const {batch, heads, headDim, blockSize, segmentSize, queryBlocks, keyBlocks} = geometry;
    const components = rowComponents(headDim);
    super({
      inputs: {
        pooled: {tensor: pooled, components},
        ...(proxyMass && {proxyMass: {tensor: proxyMass, components: 1}}),
      },
      outputShape: [batch, heads, queryBlocks, keyBlocks],
      outputType: 'float32',
      threads: 128,
      workgroups: batch * heads * queryBlocks,
      uniforms: {
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        blocksPerSegment: {type: 'i32', value: segmentSize / blockSize},
        firstProxyBlock: {type: 'i32', value: firstProxyBlock(geometry)},
      },
      variant: {headDim, causal, exactLastBlock: proxyMass !== undefined},
    });
  }

  protected shader({headDim, causal, exactLastBlock}: BlockScoresVariant): string {
    return `
// A workgroup computes the row of one query block; an invocation computes every 128th key block. The row itself holds
// the unnormalised values between the steps, each read by the invocation that wrote it, so only the reductions of
// maximum and sum need workgroup memory and barriers.
${workgroupIndex}
${workgroupReduce(128)}
${readRow('readPooled', 'pooled', headDim)}

// log2 of the weight of a key block: the pooled keys stand behind the pooled queries of all heads.
fn logit(row : i32, keyRow : i32) -> f32 {
  let firstKeyRow = uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  var sum = 0.0;
  for (var i = 0; i < ${headVectors(headDim)}; i++) {
    sum += dot(readPooled(row, i), readPooled(firstKeyRow + keyRow, i));
  }
  return uniforms.logitScale * sum;
}

fn main(index : i32) {
  let blocks = uniforms.outShape.z;
  let row = workgroupIndex();
  let queryBlock = row % blocks;
  let head = row / blocks;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let candidates = ${causal ? '(queryBlock / uniforms.blocksPerSegment) * uniforms.blocksPerSegment' : 'blocks'};
  let end = select(0, candidates, exists);
  ${exactLastBlock ? 'let pooled = queryBlock < uniforms.firstProxyBlock;' : 'let pooled = true;'}

  var localMax = -3.4e38f;
  if (pooled) {
    for (var i = i32(localIndex); i < end; i += 128) {
      let x = logit(row, head * blocks + i);
      result[row * blocks + i] = x;
      localMax = max(localMax, x);
    }
  }
  let rowMax = workgroupMax(localMax);
  var localSum = 0.0;
  for (var i = i32(localIndex); i < end; i += 128) {
    var weight = 0.0;
    if (pooled) {
      weight = exp2(result[row * blocks + i] - rowMax);
    }${exactLastBlock ? ' else {\n      weight = proxyMass[head * blocks + i];\n    }' : ''}
    result[row * blocks + i] = weight;
    localSum += weight;
  }
  let sum = workgroupSum(localSum);
  if (exists) {
    for (var i = i32(localIndex); i < blocks; i += 128) {
      // No mass outside the own segment: the row stays 0, never reaches a threshold, and every block is kept.
      result[row * blocks + i] = select(0.0, result[row * blocks + i] / sum, i < end && sum != 0.0);
    }
  }
}`;
  }
}
