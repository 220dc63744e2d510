// A workgroup takes 64 query rows of one block. 4 neighbouring invocations share 4 of them: each holds a quarter of their
// queries and of their values in registers, so that a summary that it reads serves 4 rows. They take four skipped blocks
// at a time: each adds up the products of its quarter, for all four blocks; by way of workgroup memory each then gets the
// whole products of one block, and from its scores all four get the weights. A vec4 holds the same of 4 rows.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;
fn scoredBlocks(queryBlock : i32) -> i32 {
  return (queryBlock / uniforms.blocksPerSegment) * uniforms.blocksPerSegment;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let scored = scoredBlocks(queryBlock);
  return min(scored + uniforms.blocksPerSegment, uniforms.keyBlocks);
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readSummary(row : i32, vector : i32) -> vec4<f32> { return summaries[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return valueMeans[row * 16 + vector]; }

fn summaryScore(byMean : vec4<f32>, byVariance : vec4<f32>, counts : vec4<f32>) -> vec4<f32> {
  return byMean + min(uniforms.varianceScale * byVariance, vec4<f32>(uniforms.varianceCap)) + log2(counts);
}

// Keys of a block that are not padding, of all `end` that are none.
fn countOf(block : i32, end : i32) -> f32 {
  return f32(min(uniforms.blockSize, end - block * uniforms.blockSize));
}
var<workgroup> byMeanParts : array<vec4<f32>, 256>;
var<workgroup> byVarianceParts : array<vec4<f32>, 256>;
var<workgroup> scoreParts : array<vec4<f32>, 64>;
var<workgroup> keptBlocks : atomic<i32>;
// Blocks that compete, and how many of them are skipped.
var<workgroup> counts : vec2<i32>;

fn main(index : i32) {
  let local = i32(localIndex);
  let part = local % 4;
  let team = local - part;
  let heads = uniforms.outShape.y;
  let allHeads = uniforms.outShape.x * heads;
  let queryBlocks = uniforms.blockListsShape.z;
  let piece = workgroupIndex() % uniforms.piecesOfBlock;
  // Last rows first: under a causal mask most blocks compete for them, and a long workgroup should not start last.
  let queryBlock = queryBlocks - 1 - (workgroupIndex() / uniforms.piecesOfBlock) % queryBlocks;
  let head = min(workgroupIndex() / (uniforms.piecesOfBlock * queryBlocks), allHeads - 1);
  let rowInBlock = (piece * 16 + local / 4) * 4;
  let firstRow = queryBlock * uniforms.blockSize + rowInBlock;
  let endRow = select(
    min((queryBlock + 1) * uniforms.blockSize, uniforms.outShape.z),
    0,
    workgroupIndex() >= uniforms.piecesOfBlock * queryBlocks * allHeads);
  let list = (head * queryBlocks + queryBlock) * (uniforms.keyBlocks + 1);
  let listEnd = list + 1 + blockLists[list];
  let end = uniforms.keyLength;
  let competing = min(scoredBlocks(queryBlock), (end + uniforms.blockSize - 1) / uniforms.blockSize);
  for (var i = list + 1 + local; i < listEnd; i += 64) {
    if (blockLists[i] < competing) {
      atomicAdd(&keptBlocks, 1);
    }
  }
  // Barrier: all have counted.
  workgroupBarrier();
  if (local == 0) {
    counts = vec2<i32>(competing, competing - atomicLoad(&keptBlocks));
  }
  // The loop holds barriers, so all invocations must agree on its length: hence the uniform load.
  let skipped = workgroupUniformLoad(&counts).y;

  // Rows past the end read some row that exists.
  let queryRow0 = head * uniforms.outShape.z + min(firstRow + 0, uniforms.outShape.z - 1);
    let queryRow1 = head * uniforms.outShape.z + min(firstRow + 1, uniforms.outShape.z - 1);
    let queryRow2 = head * uniforms.outShape.z + min(firstRow + 2, uniforms.outShape.z - 1);
    let queryRow3 = head * uniforms.outShape.z + min(firstRow + 3, uniforms.outShape.z - 1);
  var q0_0 = vec4<f32>(0.0);
    { q0_0 = uniforms.logitScale * readQuery(queryRow0, part + 0); }
    var q0_1 = vec4<f32>(0.0);
    { q0_1 = uniforms.logitScale * readQuery(queryRow0, part + 4); }
    var q0_2 = vec4<f32>(0.0);
    { q0_2 = uniforms.logitScale * readQuery(queryRow0, part + 8); }
    var q0_3 = vec4<f32>(0.0);
    { q0_3 = uniforms.logitScale * readQuery(queryRow0, part + 12); }
    var q1_0 = vec4<f32>(0.0);
    { q1_0 = uniforms.logitScale * readQuery(queryRow1, part + 0); }
    var q1_1 = vec4<f32>(0.0);
    { q1_1 = uniforms.logitScale * readQuery(queryRow1, part + 4); }
    var q1_2 = vec4<f32>(0.0);
    { q1_2 = uniforms.logitScale * readQuery(queryRow1, part + 8); }
    var q1_3 = vec4<f32>(0.0);
    { q1_3 = uniforms.logitScale * readQuery(queryRow1, part + 12); }
    var q2_0 = vec4<f32>(0.0);
    { q2_0 = uniforms.logitScale * readQuery(queryRow2, part + 0); }
    var q2_1 = vec4<f32>(0.0);
    { q2_1 = uniforms.logitScale * readQuery(queryRow2, part + 4); }
    var q2_2 = vec4<f32>(0.0);
    { q2_2 = uniforms.logitScale * readQuery(queryRow2, part + 8); }
    var q2_3 = vec4<f32>(0.0);
    { q2_3 = uniforms.logitScale * readQuery(queryRow2, part + 12); }
    var q3_0 = vec4<f32>(0.0);
    { q3_0 = uniforms.logitScale * readQuery(queryRow3, part + 0); }
    var q3_1 = vec4<f32>(0.0);
    { q3_1 = uniforms.logitScale * readQuery(queryRow3, part + 4); }
    var q3_2 = vec4<f32>(0.0);
    { q3_2 = uniforms.logitScale * readQuery(queryRow3, part + 8); }
    var q3_3 = vec4<f32>(0.0);
    { q3_3 = uniforms.logitScale * readQuery(queryRow3, part + 12); }

  // Empty state: nothing seen, all sums zero.
  var rowMax = vec4<f32>(lowest);
  var rowSum = vec4<f32>(0.0);
  var values0 = array<vec4<f32>, 4>();
    var values1 = array<vec4<f32>, 4>();
    var values2 = array<vec4<f32>, 4>();
    var values3 = array<vec4<f32>, 4>();
  var entry = list + 1;
  var block = 0;
  for (var done = 0; done < skipped; done += 4) {
    // The next four skipped blocks; where there are fewer, the first stands for the others and counts once. The list is in
    // ascending order.
    var blocks = vec4<i32>(0);
    var found = 0;
    for (; block < competing && found < 4; block++) {
      if (entry < listEnd && blockLists[entry] == block) {
        entry++;
      } else {
        blocks[found] = block;
        found++;
      }
    }
    blocks = select(vec4<i32>(blocks.x), blocks, vec4<i32>(0, 1, 2, 3) < vec4<i32>(found));
    let meanRows = vec4<i32>(head * uniforms.keyBlocks) + blocks;
    let varianceRows = vec4<i32>(allHeads * uniforms.keyBlocks) + meanRows;

    // 1. Products of this quarter of the rows with four blocks.
    var byMean0 = vec4<f32>(0.0);
    var byVariance0 = vec4<f32>(0.0);
    var byMean1 = vec4<f32>(0.0);
    var byVariance1 = vec4<f32>(0.0);
    var byMean2 = vec4<f32>(0.0);
    var byVariance2 = vec4<f32>(0.0);
    var byMean3 = vec4<f32>(0.0);
    var byVariance3 = vec4<f32>(0.0);
    {
      let squared0 = q0_0 * q0_0;
      let squared1 = q1_0 * q1_0;
      let squared2 = q2_0 * q2_0;
      let squared3 = q3_0 * q3_0;
      let mean0 = readSummary(meanRows[0], part + 0);
      let variance0 = readSummary(varianceRows[0], part + 0);
      byMean0 += vec4<f32>(dot(q0_0, mean0), dot(q1_0, mean0), dot(q2_0, mean0), dot(q3_0, mean0));
      byVariance0 += vec4<f32>(dot(squared0, variance0), dot(squared1, variance0), dot(squared2, variance0), dot(squared3, variance0));
      let mean1 = readSummary(meanRows[1], part + 0);
      let variance1 = readSummary(varianceRows[1], part + 0);
      byMean1 += vec4<f32>(dot(q0_0, mean1), dot(q1_0, mean1), dot(q2_0, mean1), dot(q3_0, mean1));
      byVariance1 += vec4<f32>(dot(squared0, variance1), dot(squared1, variance1), dot(squared2, variance1), dot(squared3, variance1));
      let mean2 = readSummary(meanRows[2], part + 0);
      let variance2 = readSummary(varianceRows[2], part + 0);
      byMean2 += vec4<f32>(dot(q0_0, mean2), dot(q1_0, mean2), dot(q2_0, mean2), dot(q3_0, mean2));
      byVariance2 += vec4<f32>(dot(squared0, variance2), dot(squared1, variance2), dot(squared2, variance2), dot(squared3, variance2));
      let mean3 = readSummary(meanRows[3], part + 0);
      let variance3 = readSummary(varianceRows[3], part + 0);
      byMean3 += vec4<f32>(dot(q0_0, mean3), dot(q1_0, mean3), dot(q2_0, mean3), dot(q3_0, mean3));
      byVariance3 += vec4<f32>(dot(squared0, variance3), dot(squared1, variance3), dot(squared2, variance3), dot(squared3, variance3));
    }
    {
      let squared0 = q0_1 * q0_1;
      let squared1 = q1_1 * q1_1;
      let squared2 = q2_1 * q2_1;
      let squared3 = q3_1 * q3_1;
      let mean0 = readSummary(meanRows[0], part + 4);
      let variance0 = readSummary(varianceRows[0], part + 4);
      byMean0 += vec4<f32>(dot(q0_1, mean0), dot(q1_1, mean0), dot(q2_1, mean0), dot(q3_1, mean0));
      byVariance0 += vec4<f32>(dot(squared0, variance0), dot(squared1, variance0), dot(squared2, variance0), dot(squared3, variance0));
      let mean1 = readSummary(meanRows[1], part + 4);
      let variance1 = readSummary(varianceRows[1], part + 4);
      byMean1 += vec4<f32>(dot(q0_1, mean1), dot(q1_1, mean1), dot(q2_1, mean1), dot(q3_1, mean1));
      byVariance1 += vec4<f32>(dot(squared0, variance1), dot(squared1, variance1), dot(squared2, variance1), dot(squared3, variance1));
      let mean2 = readSummary(meanRows[2], part + 4);
      let variance2 = readSummary(varianceRows[2], part + 4);
      byMean2 += vec4<f32>(dot(q0_1, mean2), dot(q1_1, mean2), dot(q2_1, mean2), dot(q3_1, mean2));
      byVariance2 += vec4<f32>(dot(squared0, variance2), dot(squared1, variance2), dot(squared2, variance2), dot(squared3, variance2));
      let mean3 = readSummary(meanRows[3], part + 4);
      let variance3 = readSummary(varianceRows[3], part + 4);
      byMean3 += vec4<f32>(dot(q0_1, mean3), dot(q1_1, mean3), dot(q2_1, mean3), dot(q3_1, mean3));
      byVariance3 += vec4<f32>(dot(squared0, variance3), dot(squared1, variance3), dot(squared2, variance3), dot(squared3, variance3));
    }
    {
      let squared0 = q0_2 * q0_2;
      let squared1 = q1_2 * q1_2;
      let squared2 = q2_2 * q2_2;
      let squared3 = q3_2 * q3_2;
      let mean0 = readSummary(meanRows[0], part + 8);
      let variance0 = readSummary(varianceRows[0], part + 8);
      byMean0 += vec4<f32>(dot(q0_2, mean0), dot(q1_2, mean0), dot(q2_2, mean0), dot(q3_2, mean0));
      byVariance0 += vec4<f32>(dot(squared0, variance0), dot(squared1, variance0), dot(squared2, variance0), dot(squared3, variance0));
      let mean1 = readSummary(meanRows[1], part + 8);
      let variance1 = readSummary(varianceRows[1], part + 8);
      byMean1 += vec4<f32>(dot(q0_2, mean1), dot(q1_2, mean1), dot(q2_2, mean1), dot(q3_2, mean1));
      byVariance1 += vec4<f32>(dot(squared0, variance1), dot(squared1, variance1), dot(squared2, variance1), dot(squared3, variance1));
      let mean2 = readSummary(meanRows[2], part + 8);
      let variance2 = readSummary(varianceRows[2], part + 8);
      byMean2 += vec4<f32>(dot(q0_2, mean2), dot(q1_2, mean2), dot(q2_2, mean2), dot(q3_2, mean2));
      byVariance2 += vec4<f32>(dot(squared0, variance2), dot(squared1, variance2), dot(squared2, variance2), dot(squared3, variance2));
      let mean3 = readSummary(meanRows[3], part + 8);
      let variance3 = readSummary(varianceRows[3], part + 8);
      byMean3 += vec4<f32>(dot(q0_2, mean3), dot(q1_2, mean3), dot(q2_2, mean3), dot(q3_2, mean3));
      byVariance3 += vec4<f32>(dot(squared0, variance3), dot(squared1, variance3), dot(squared2, variance3), dot(squared3, variance3));
    }
    {
      let squared0 = q0_3 * q0_3;
      let squared1 = q1_3 * q1_3;
      let squared2 = q2_3 * q2_3;
      let squared3 = q3_3 * q3_3;
      let mean0 = readSummary(meanRows[0], part + 12);
      let variance0 = readSummary(varianceRows[0], part + 12);
      byMean0 += vec4<f32>(dot(q0_3, mean0), dot(q1_3, mean0), dot(q2_3, mean0), dot(q3_3, mean0));
      byVariance0 += vec4<f32>(dot(squared0, variance0), dot(squared1, variance0), dot(squared2, variance0), dot(squared3, variance0));
      let mean1 = readSummary(meanRows[1], part + 12);
      let variance1 = readSummary(varianceRows[1], part + 12);
      byMean1 += vec4<f32>(dot(q0_3, mean1), dot(q1_3, mean1), dot(q2_3, mean1), dot(q3_3, mean1));
      byVariance1 += vec4<f32>(dot(squared0, variance1), dot(squared1, variance1), dot(squared2, variance1), dot(squared3, variance1));
      let mean2 = readSummary(meanRows[2], part + 12);
      let variance2 = readSummary(varianceRows[2], part + 12);
      byMean2 += vec4<f32>(dot(q0_3, mean2), dot(q1_3, mean2), dot(q2_3, mean2), dot(q3_3, mean2));
      byVariance2 += vec4<f32>(dot(squared0, variance2), dot(squared1, variance2), dot(squared2, variance2), dot(squared3, variance2));
      let mean3 = readSummary(meanRows[3], part + 12);
      let variance3 = readSummary(varianceRows[3], part + 12);
      byMean3 += vec4<f32>(dot(q0_3, mean3), dot(q1_3, mean3), dot(q2_3, mean3), dot(q3_3, mean3));
      byVariance3 += vec4<f32>(dot(squared0, variance3), dot(squared1, variance3), dot(squared2, variance3), dot(squared3, variance3));
    }
    byMeanParts[0 + local] = byMean0;
    byVarianceParts[0 + local] = byVariance0;
    byMeanParts[64 + local] = byMean1;
    byVarianceParts[64 + local] = byVariance1;
    byMeanParts[128 + local] = byMean2;
    byVarianceParts[128 + local] = byVariance2;
    byMeanParts[192 + local] = byMean3;
    byVarianceParts[192 + local] = byVariance3;
    // Barrier: products need the quarters of all invocations of a team.
    workgroupBarrier();

    // 2. Scores of one block each.
    {
      let at = part * 64 + team;
      let byMean = byMeanParts[at + 0] + byMeanParts[at + 1] + byMeanParts[at + 2] + byMeanParts[at + 3];
      let byVariance = byVarianceParts[at + 0] + byVarianceParts[at + 1] + byVarianceParts[at + 2] + byVarianceParts[at + 3];
      let scores = summaryScore(byMean, byVariance, vec4<f32>(countOf(blocks[part], end)));
      scoreParts[local] = select(vec4<f32>(masked), scores, part < found);
    }
    // Barrier: weights need the scores of all four blocks. (They are overwritten after the next round's first barrier.)
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    let score0 = scoreParts[team + 0];
    let score1 = scoreParts[team + 1];
    let score2 = scoreParts[team + 2];
    let score3 = scoreParts[team + 3];
    let newMax = max(rowMax, max(max(score0, score1), max(score2, score3)));
    let rescale = exp2(rowMax - newMax);
    let weight0 = exp2(score0 - newMax);
    let weight1 = exp2(score1 - newMax);
    let weight2 = exp2(score2 - newMax);
    let weight3 = exp2(score3 - newMax);
    rowMax = newMax;
    rowSum = rowSum * rescale + weight0 + weight1 + weight2 + weight3;
    {
      let value0 = readValue(meanRows[0], part + 0);
      let value1 = readValue(meanRows[1], part + 0);
      let value2 = readValue(meanRows[2], part + 0);
      let value3 = readValue(meanRows[3], part + 0);
      values0[0] = values0[0] * rescale[0] + weight0[0] * value0 + weight1[0] * value1 + weight2[0] * value2 + weight3[0] * value3;
      values1[0] = values1[0] * rescale[1] + weight0[1] * value0 + weight1[1] * value1 + weight2[1] * value2 + weight3[1] * value3;
      values2[0] = values2[0] * rescale[2] + weight0[2] * value0 + weight1[2] * value1 + weight2[2] * value2 + weight3[2] * value3;
      values3[0] = values3[0] * rescale[3] + weight0[3] * value0 + weight1[3] * value1 + weight2[3] * value2 + weight3[3] * value3;
    }
    {
      let value0 = readValue(meanRows[0], part + 4);
      let value1 = readValue(meanRows[1], part + 4);
      let value2 = readValue(meanRows[2], part + 4);
      let value3 = readValue(meanRows[3], part + 4);
      values0[1] = values0[1] * rescale[0] + weight0[0] * value0 + weight1[0] * value1 + weight2[0] * value2 + weight3[0] * value3;
      values1[1] = values1[1] * rescale[1] + weight0[1] * value0 + weight1[1] * value1 + weight2[1] * value2 + weight3[1] * value3;
      values2[1] = values2[1] * rescale[2] + weight0[2] * value0 + weight1[2] * value1 + weight2[2] * value2 + weight3[2] * value3;
      values3[1] = values3[1] * rescale[3] + weight0[3] * value0 + weight1[3] * value1 + weight2[3] * value2 + weight3[3] * value3;
    }
    {
      let value0 = readValue(meanRows[0], part + 8);
      let value1 = readValue(meanRows[1], part + 8);
      let value2 = readValue(meanRows[2], part + 8);
      let value3 = readValue(meanRows[3], part + 8);
      values0[2] = values0[2] * rescale[0] + weight0[0] * value0 + weight1[0] * value1 + weight2[0] * value2 + weight3[0] * value3;
      values1[2] = values1[2] * rescale[1] + weight0[1] * value0 + weight1[1] * value1 + weight2[1] * value2 + weight3[1] * value3;
      values2[2] = values2[2] * rescale[2] + weight0[2] * value0 + weight1[2] * value1 + weight2[2] * value2 + weight3[2] * value3;
      values3[2] = values3[2] * rescale[3] + weight0[3] * value0 + weight1[3] * value1 + weight2[3] * value2 + weight3[3] * value3;
    }
    {
      let value0 = readValue(meanRows[0], part + 12);
      let value1 = readValue(meanRows[1], part + 12);
      let value2 = readValue(meanRows[2], part + 12);
      let value3 = readValue(meanRows[3], part + 12);
      values0[3] = values0[3] * rescale[0] + weight0[0] * value0 + weight1[0] * value1 + weight2[0] * value2 + weight3[0] * value3;
      values1[3] = values1[3] * rescale[1] + weight0[1] * value0 + weight1[1] * value1 + weight2[1] * value2 + weight3[1] * value3;
      values2[3] = values2[3] * rescale[2] + weight0[2] * value0 + weight1[2] * value1 + weight2[2] * value2 + weight3[2] * value3;
      values3[3] = values3[3] * rescale[3] + weight0[3] * value0 + weight1[3] * value1 + weight2[3] * value2 + weight3[3] * value3;
    }
  }

  if (firstRow + 0 < endRow) {
    let at = queryRow0 * 17;
    { result[at + part + 0] = values0[0]; }
    { result[at + part + 4] = values0[1]; }
    { result[at + part + 8] = values0[2]; }
    { result[at + part + 12] = values0[3]; }
    if (part == 0) {
      result[at + 16] = vec4<f32>(rowMax[0], rowSum[0], 0.0, 0.0);
    }
  }
    if (firstRow + 1 < endRow) {
    let at = queryRow1 * 17;
    { result[at + part + 0] = values1[0]; }
    { result[at + part + 4] = values1[1]; }
    { result[at + part + 8] = values1[2]; }
    { result[at + part + 12] = values1[3]; }
    if (part == 0) {
      result[at + 16] = vec4<f32>(rowMax[1], rowSum[1], 0.0, 0.0);
    }
  }
    if (firstRow + 2 < endRow) {
    let at = queryRow2 * 17;
    { result[at + part + 0] = values2[0]; }
    { result[at + part + 4] = values2[1]; }
    { result[at + part + 8] = values2[2]; }
    { result[at + part + 12] = values2[3]; }
    if (part == 0) {
      result[at + 16] = vec4<f32>(rowMax[2], rowSum[2], 0.0, 0.0);
    }
  }
    if (firstRow + 3 < endRow) {
    let at = queryRow3 * 17;
    { result[at + part + 0] = values3[0]; }
    { result[at + part + 4] = values3[1]; }
    { result[at + part + 8] = values3[2]; }
    { result[at + part + 12] = values3[3]; }
    if (part == 0) {
      result[at + 16] = vec4<f32>(rowMax[3], rowSum[3], 0.0, 0.0);
    }
  }
}
