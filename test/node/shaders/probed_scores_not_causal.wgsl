// A workgroup computes the scores of one query block; an invocation computes every 128th key block. Four rows of queries are
// taken at a time, as the columns of matrices in workgroup memory: a vec4 holds the same of four rows. The result itself
// adds up what they pay to a key block, each value touched by one invocation alone, so that only the sums over key blocks
// need workgroup memory and barriers.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return uniforms.keyBlocks;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let scored = scoredBlocks(queryBlock);
  return uniforms.keyBlocks;
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readSummary(row : i32, vector : i32) -> vec4<f32> { return summaries[row * 16 + vector]; }

fn summaryScore(byMean : vec4<f32>, byVariance : vec4<f32>, counts : vec4<f32>) -> vec4<f32> {
  return byMean + min(uniforms.varianceScale * byVariance, vec4<f32>(uniforms.varianceCap)) + log2(counts);
}

// Keys of a block that are not padding, of all `end` that are none.
fn countOf(block : i32, end : i32) -> f32 {
  return f32(min(uniforms.blockSize, end - block * uniforms.blockSize));
}
// Log of nothing; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Column j of entry v: dimension 4 v + j of four queries, scaled.
var<workgroup> queries : array<mat4x4<f32>, 16>;
// Key blocks that compete, and key blocks that the query block may see: [0, x) and [0, y). Whether the mean is known: z.
var<workgroup> counts : vec3<i32>;

// log2 of what each of four rows pays to a block.
fn scoresOf(head : i32, block : i32, end : i32) -> vec4<f32> {
  let meanRow = head * uniforms.keyBlocks + block;
  let varianceRow = uniforms.outShape.x * uniforms.outShape.y * uniforms.keyBlocks + meanRow;
  var byMean = vec4<f32>(0.0);
  var byVariance = vec4<f32>(0.0);
  for (var v = 0; v < 16; v++) {
    let q = queries[v];
    byMean += q * readSummary(meanRow, v);
    byVariance += mat4x4<f32>(q[0] * q[0], q[1] * q[1], q[2] * q[2], q[3] * q[3]) * readSummary(varianceRow, v);
  }
  return summaryScore(byMean, byVariance, vec4<f32>(countOf(block, end)));
}

var<workgroup> maxima : array<vec4<f32>, 128>;
var<workgroup> sums : array<vec4<f32>, 128>;

// log2 of the sum of exp2 over all invocations, from maxima and sums of their own.
fn logSum(localMax : vec4<f32>, localSum : vec4<f32>) -> vec4<f32> {
  let local = i32(localIndex);
  maxima[local] = localMax;
  sums[local] = localSum;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 64; stride > 0; stride /= 2) {
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
  let end = select(0, uniforms.keyLength, exists);
  if (local == 0) {
    let blocksWithKeys = (end + uniforms.blockSize - 1) / uniforms.blockSize;
    let competing = min(scoredBlocks(queryBlock), blocksWithKeys);
    let known = false;
    counts = select(vec3<i32>(0), vec3<i32>(competing, visibleBlocks(queryBlock), select(0, 1, known)), exists);
  }
  // The branches and loops hold barriers, so all invocations must agree on them: hence the uniform load.
  let blocks = workgroupUniformLoad(&counts);
  let competing = blocks.x;
  let scores = row * uniforms.keyBlocks;
  if (exists) {
    for (var i = local; i < uniforms.keyBlocks; i += 128) {
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
    for (var i = local; i < visible; i += 128) {
      let x = fourProbes(first + i, probeRows - firstProbe);
      let newMax = max(localMax, x);
      localSum = localSum * exp2(localMax - newMax) + select(exp2(x - newMax), vec4<f32>(0.0), x == vec4<f32>(masked));
      localMax = newMax;
    }
    let total = logSum(localMax, localSum);
    for (var i = local; i < competing; i += 128) {
      let x = fourProbes(first + i, probeRows - firstProbe);
      let shares = select(exp2(x - total), vec4<f32>(0.0), x == vec4<f32>(masked));
      result[scores + i] = max(result[scores + i], 0.1 * max(max(shares.x, shares.y), max(shares.z, shares.w)));
    }
  }

  // 2. The mean share of all rows: of evenly spaced ones by summaries, or known.
  if (blocks.z == 0 && competing > 0) {
    let firstRow = queryBlock * uniforms.blockSize;
    let rowCount = min(uniforms.blockSize, uniforms.queryShape.z - firstRow);
    for (var firstEven = 0; firstEven < 16; firstEven += 4) {
      for (var v = local; v < 16; v += 128) {
        queries[v] = transpose(mat4x4<f32>(
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstEven + 1) * rowCount) / 16 - 1), v),
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstEven + 2) * rowCount) / 16 - 1), v),
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstEven + 3) * rowCount) / 16 - 1), v),
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstEven + 4) * rowCount) / 16 - 1), v)));
      }
      // Barrier: scores read the queries that others loaded.
      workgroupBarrier();
      var localMax = vec4<f32>(masked);
      var localSum = vec4<f32>(0.0);
      for (var i = local; i < competing; i += 128) {
        let x = scoresOf(head, i, end);
        let newMax = max(localMax, x);
        localSum = localSum * exp2(localMax - newMax) + exp2(x - newMax);
        localMax = newMax;
      }
      let total = logSum(localMax, localSum);
      for (var i = local; i < competing; i += 128) {
        result[scores + i] += dot(exp2(scoresOf(head, i, end) - total), vec4<f32>(0.0625));
      }
      // Barrier: the next four queries replace these.
      workgroupBarrier();
    }
  }
  for (var i = local; i < competing; i += 128) {
    
    result[scores + i] /= 1.1;
  }
}

// What four probe rows pay to a block, from the first of them on, as far as there are some.
fn fourProbes(at : i32, rows : i32) -> vec4<f32> {
  var x = vec4<f32>(masked);
  for (var k = 0; k < min(4, rows); k++) {
    x[k] = probeLogSums[at + k * uniforms.keyBlocks];
  }
  return x;
}
