// A workgroup computes the scores of one query block; an invocation computes every 128th key block. Rows of queries are
// taken by fours, 4 at a time, as the columns of matrices in workgroup memory: a vec4 holds the same of four rows. The
// result itself adds up what they pay to a key block, each value touched by one invocation alone, so that only the sums over
// key blocks need workgroup memory and barriers. Estimates of an invocation's first key block stay in registers, so that up to
// 128 key blocks none is computed twice.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return ((uniforms.queryOffset + queryBlock * uniforms.blockSize) / (uniforms.blocksPerSegment * uniforms.blockSize)) * uniforms.blocksPerSegment;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let scored = scoredBlocks(queryBlock);
  return min(((uniforms.queryOffset + min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1) / (uniforms.blocksPerSegment * uniforms.blockSize)) * uniforms.blocksPerSegment + uniforms.blocksPerSegment, uniforms.keyBlocks);
}
fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / uniforms.outShape.y], 0, uniforms.keyLength);
}
fn proxyRange(head : i32) -> vec2<i32> {
  let end = clamp(keyEnd(head) - uniforms.queryOffset, 0, uniforms.queryShape.z);
  return vec2<i32>(max(0, end - uniforms.proxyRows), end);
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
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;
// Column j of entry 4 v + f: dimension 4 v + j of the f-th four queries, scaled.
var<workgroup> queries : array<mat4x4<f32>, 64>;
// Key blocks that compete, and key blocks that the query block may see: [0, x) and [0, y). Whether the mean is known: z.
var<workgroup> counts : vec3<i32>;

alias Estimates = array<vec4<f32>, 4>;

// log2 of what the rows pay to a block.
fn scoresOf(head : i32, block : i32, end : i32) -> Estimates {
  let meanRow = head * uniforms.keyBlocks + block;
  let varianceRow = uniforms.outShape.x * uniforms.outShape.y * uniforms.keyBlocks + meanRow;
  let counts = vec4<f32>(countOf(block, end));
  var byMean = Estimates();
  var byVariance = Estimates();
  for (var v = 0; v < 16; v++) {
    let mean = readSummary(meanRow, v);
    let variance = readSummary(varianceRow, v);
    {
      let q = queries[4 * v + 0];
      byMean[0] += q * mean;
      byVariance[0] += mat4x4<f32>(q[0] * q[0], q[1] * q[1], q[2] * q[2], q[3] * q[3]) * variance;
    }
    {
      let q = queries[4 * v + 1];
      byMean[1] += q * mean;
      byVariance[1] += mat4x4<f32>(q[0] * q[0], q[1] * q[1], q[2] * q[2], q[3] * q[3]) * variance;
    }
    {
      let q = queries[4 * v + 2];
      byMean[2] += q * mean;
      byVariance[2] += mat4x4<f32>(q[0] * q[0], q[1] * q[1], q[2] * q[2], q[3] * q[3]) * variance;
    }
    {
      let q = queries[4 * v + 3];
      byMean[3] += q * mean;
      byVariance[3] += mat4x4<f32>(q[0] * q[0], q[1] * q[1], q[2] * q[2], q[3] * q[3]) * variance;
    }
  }
  return Estimates(summaryScore(byMean[0], byVariance[0], counts), summaryScore(byMean[1], byVariance[1], counts), summaryScore(byMean[2], byVariance[2], counts), summaryScore(byMean[3], byVariance[3], counts));
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
  let end = select(0, keyEnd(min(head, uniforms.outShape.x * heads - 1)), exists);
  if (local == 0) {
    let blocksWithKeys = (end + uniforms.blockSize - 1) / uniforms.blockSize;
    let competing = min(scoredBlocks(queryBlock), blocksWithKeys);
    let proxies = proxyRange(min(head, uniforms.outShape.x * heads - 1));
    let known = proxies.x < proxies.y && queryBlock >= proxies.x / uniforms.blockSize;
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
    for (var firstEven = 0; firstEven < 16; firstEven += 16) {
      for (var i = local; i < 64; i += 128) {
        let v = i / 4;
        let firstOfFour = firstEven + 4 * (i % 4);
        queries[i] = transpose(mat4x4<f32>(
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstOfFour + 1) * rowCount) / 16 - 1), v),
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstOfFour + 2) * rowCount) / 16 - 1), v),
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstOfFour + 3) * rowCount) / 16 - 1), v),
          uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + max(0, ((firstOfFour + 4) * rowCount) / 16 - 1), v)));
      }
      // Barrier: scores read the queries that others loaded.
      workgroupBarrier();
      var localMax : Estimates;
      var localSum = Estimates();
      localMax[0] = vec4<f32>(masked);
    localMax[1] = vec4<f32>(masked);
    localMax[2] = vec4<f32>(masked);
    localMax[3] = vec4<f32>(masked);
      var firstScores : Estimates;
      for (var i = local; i < competing; i += 128) {
        let x = scoresOf(head, i, end);
        if (i == local) {
          firstScores = x;
        }
        {
          let newMax = max(localMax[0], x[0]);
          localSum[0] = localSum[0] * exp2(localMax[0] - newMax) + exp2(x[0] - newMax);
          localMax[0] = newMax;
        }
    {
          let newMax = max(localMax[1], x[1]);
          localSum[1] = localSum[1] * exp2(localMax[1] - newMax) + exp2(x[1] - newMax);
          localMax[1] = newMax;
        }
    {
          let newMax = max(localMax[2], x[2]);
          localSum[2] = localSum[2] * exp2(localMax[2] - newMax) + exp2(x[2] - newMax);
          localMax[2] = newMax;
        }
    {
          let newMax = max(localMax[3], x[3]);
          localSum[3] = localSum[3] * exp2(localMax[3] - newMax) + exp2(x[3] - newMax);
          localMax[3] = newMax;
        }
      }
      for (var i = local; i < blocks.y - scoredBlocks(queryBlock); i += 128) {
        {
          let ownRows = row * 16 + firstEven + 0;
          let x = vec4<f32>(ownLogSums[(ownRows + 0) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 1) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 2) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 3) * uniforms.ownLogSumsShape.z + i]);
          let newMax = max(localMax[0], x);
          localSum[0] = localSum[0] * exp2(localMax[0] - newMax) + select(exp2(x - newMax), vec4<f32>(0.0), x == vec4<f32>(masked));
          localMax[0] = newMax;
        }
    {
          let ownRows = row * 16 + firstEven + 4;
          let x = vec4<f32>(ownLogSums[(ownRows + 0) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 1) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 2) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 3) * uniforms.ownLogSumsShape.z + i]);
          let newMax = max(localMax[1], x);
          localSum[1] = localSum[1] * exp2(localMax[1] - newMax) + select(exp2(x - newMax), vec4<f32>(0.0), x == vec4<f32>(masked));
          localMax[1] = newMax;
        }
    {
          let ownRows = row * 16 + firstEven + 8;
          let x = vec4<f32>(ownLogSums[(ownRows + 0) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 1) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 2) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 3) * uniforms.ownLogSumsShape.z + i]);
          let newMax = max(localMax[2], x);
          localSum[2] = localSum[2] * exp2(localMax[2] - newMax) + select(exp2(x - newMax), vec4<f32>(0.0), x == vec4<f32>(masked));
          localMax[2] = newMax;
        }
    {
          let ownRows = row * 16 + firstEven + 12;
          let x = vec4<f32>(ownLogSums[(ownRows + 0) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 1) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 2) * uniforms.ownLogSumsShape.z + i], ownLogSums[(ownRows + 3) * uniforms.ownLogSumsShape.z + i]);
          let newMax = max(localMax[3], x);
          localSum[3] = localSum[3] * exp2(localMax[3] - newMax) + select(exp2(x - newMax), vec4<f32>(0.0), x == vec4<f32>(masked));
          localMax[3] = newMax;
        }
      }
      let total0 = logSum(localMax[0], localSum[0]);
    let total1 = logSum(localMax[1], localSum[1]);
    let total2 = logSum(localMax[2], localSum[2]);
    let total3 = logSum(localMax[3], localSum[3]);
      for (var i = local; i < competing; i += 128) {
        var x = firstScores;
        if (i != local) {
          x = scoresOf(head, i, end);
        }
        result[scores + i] += dot(exp2(x[0] - total0) + exp2(x[1] - total1) + exp2(x[2] - total2) + exp2(x[3] - total3), vec4<f32>(0.0625));
      }
      // Barrier: the next queries replace these.
      workgroupBarrier();
    }
  }
  for (var i = local; i < competing; i += 128) {
    if (blocks.z != 0) { result[scores + i] += proxyMass[head * uniforms.keyBlocks + i]; }
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
