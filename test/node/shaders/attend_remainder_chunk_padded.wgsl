// An invocation owns one query row, in registers; a workgroup 64 rows of one query block, or what is left of it. All its
// invocations read the same summaries at a time, straight from global memory: one read serves them all. They take four blocks
// at a time, so that four times as many reads are on their way. Nothing is shared, so there is no barrier.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;
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
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readSummary(row : i32, vector : i32) -> vec4<f32> { return summaries[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return valueMeans[row * 20 + vector]; }

fn summaryScore(byMean : vec4<f32>, byVariance : vec4<f32>, counts : vec4<f32>) -> vec4<f32> {
  return byMean + min(uniforms.varianceScale * byVariance, vec4<f32>(uniforms.varianceCap)) + log2(counts);
}

// Keys of a block that are not padding, of all `end` that are none.
fn countOf(block : i32, end : i32) -> f32 {
  return f32(min(uniforms.blockSize, end - block * uniforms.blockSize));
}

fn main(index : i32) {
  let heads = uniforms.outShape.y;
  let allHeads = uniforms.outShape.x * heads;
  let queryBlocks = uniforms.blockListsShape.z;
  let part = workgroupIndex() % uniforms.partsPerBlock;
  // Last rows first: under a causal mask most blocks compete for them, and a long workgroup should not start last.
  let queryBlock = queryBlocks - 1 - (workgroupIndex() / uniforms.partsPerBlock) % queryBlocks;
  let head = workgroupIndex() / (uniforms.partsPerBlock * queryBlocks);
  let rowInBlock = part * 64 + i32(localIndex);
  let row = queryBlock * uniforms.blockSize + rowInBlock;
  if (head >= allHeads || rowInBlock >= uniforms.blockSize || row >= uniforms.outShape.z) {
    return;
  }
  let queryRow = head * uniforms.outShape.z + row;
  let q0 = uniforms.logitScale * readQuery(queryRow, 0);
    let q1 = uniforms.logitScale * readQuery(queryRow, 1);
    let q2 = uniforms.logitScale * readQuery(queryRow, 2);
    let q3 = uniforms.logitScale * readQuery(queryRow, 3);
    let q4 = uniforms.logitScale * readQuery(queryRow, 4);
    let q5 = uniforms.logitScale * readQuery(queryRow, 5);
    let q6 = uniforms.logitScale * readQuery(queryRow, 6);
    let q7 = uniforms.logitScale * readQuery(queryRow, 7);
    let q8 = uniforms.logitScale * readQuery(queryRow, 8);
    let q9 = uniforms.logitScale * readQuery(queryRow, 9);
    let q10 = uniforms.logitScale * readQuery(queryRow, 10);
    let q11 = uniforms.logitScale * readQuery(queryRow, 11);
    let q12 = uniforms.logitScale * readQuery(queryRow, 12);
    let q13 = uniforms.logitScale * readQuery(queryRow, 13);
    let q14 = uniforms.logitScale * readQuery(queryRow, 14);
    let q15 = uniforms.logitScale * readQuery(queryRow, 15);

  // Empty state: nothing seen, all sums zero.
  var rowMax = lowest;
  var rowSum = 0.0;
  var values = array<vec4<f32>, 20>();
  let list = (head * queryBlocks + queryBlock) * (uniforms.keyBlocks + 1);
  let listEnd = list + 1 + blockLists[list];
  var entry = list + 1;
  let end = keyEnd(head);
  let blocks = min(scoredBlocks(queryBlock), (end + uniforms.blockSize - 1) / uniforms.blockSize);
  var block = 0;
  while (block < blocks) {
    // The next four skipped blocks; where there are fewer, the last ones count nothing.
    var four : vec4<i32>;
    var found = 0;
    for (; block < blocks && found < 4; block++) {
      // The list is in ascending order.
      if (entry < listEnd && blockLists[entry] == block) {
        entry++;
      } else {
        four[found] = block;
        found++;
      }
    }
    if (found == 0) {
      break;
    }
    let isFound = vec4<i32>(0, 1, 2, 3) < vec4<i32>(found);
    four = select(vec4<i32>(four.x), four, isFound);
    let meanRows = vec4<i32>(head * uniforms.keyBlocks) + four;
    let varianceRows = vec4<i32>(allHeads * uniforms.keyBlocks) + meanRows;
    var byMean = vec4<f32>(0.0);
    var byVariance = vec4<f32>(0.0);
    byMean += vec4<f32>(dot(q0, readSummary(meanRows.x, 0)), dot(q0, readSummary(meanRows.y, 0)), dot(q0, readSummary(meanRows.z, 0)), dot(q0, readSummary(meanRows.w, 0)));
    {
      let squared = q0 * q0;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 0)), dot(squared, readSummary(varianceRows.y, 0)), dot(squared, readSummary(varianceRows.z, 0)), dot(squared, readSummary(varianceRows.w, 0)));
    }
    byMean += vec4<f32>(dot(q1, readSummary(meanRows.x, 1)), dot(q1, readSummary(meanRows.y, 1)), dot(q1, readSummary(meanRows.z, 1)), dot(q1, readSummary(meanRows.w, 1)));
    {
      let squared = q1 * q1;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 1)), dot(squared, readSummary(varianceRows.y, 1)), dot(squared, readSummary(varianceRows.z, 1)), dot(squared, readSummary(varianceRows.w, 1)));
    }
    byMean += vec4<f32>(dot(q2, readSummary(meanRows.x, 2)), dot(q2, readSummary(meanRows.y, 2)), dot(q2, readSummary(meanRows.z, 2)), dot(q2, readSummary(meanRows.w, 2)));
    {
      let squared = q2 * q2;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 2)), dot(squared, readSummary(varianceRows.y, 2)), dot(squared, readSummary(varianceRows.z, 2)), dot(squared, readSummary(varianceRows.w, 2)));
    }
    byMean += vec4<f32>(dot(q3, readSummary(meanRows.x, 3)), dot(q3, readSummary(meanRows.y, 3)), dot(q3, readSummary(meanRows.z, 3)), dot(q3, readSummary(meanRows.w, 3)));
    {
      let squared = q3 * q3;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 3)), dot(squared, readSummary(varianceRows.y, 3)), dot(squared, readSummary(varianceRows.z, 3)), dot(squared, readSummary(varianceRows.w, 3)));
    }
    byMean += vec4<f32>(dot(q4, readSummary(meanRows.x, 4)), dot(q4, readSummary(meanRows.y, 4)), dot(q4, readSummary(meanRows.z, 4)), dot(q4, readSummary(meanRows.w, 4)));
    {
      let squared = q4 * q4;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 4)), dot(squared, readSummary(varianceRows.y, 4)), dot(squared, readSummary(varianceRows.z, 4)), dot(squared, readSummary(varianceRows.w, 4)));
    }
    byMean += vec4<f32>(dot(q5, readSummary(meanRows.x, 5)), dot(q5, readSummary(meanRows.y, 5)), dot(q5, readSummary(meanRows.z, 5)), dot(q5, readSummary(meanRows.w, 5)));
    {
      let squared = q5 * q5;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 5)), dot(squared, readSummary(varianceRows.y, 5)), dot(squared, readSummary(varianceRows.z, 5)), dot(squared, readSummary(varianceRows.w, 5)));
    }
    byMean += vec4<f32>(dot(q6, readSummary(meanRows.x, 6)), dot(q6, readSummary(meanRows.y, 6)), dot(q6, readSummary(meanRows.z, 6)), dot(q6, readSummary(meanRows.w, 6)));
    {
      let squared = q6 * q6;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 6)), dot(squared, readSummary(varianceRows.y, 6)), dot(squared, readSummary(varianceRows.z, 6)), dot(squared, readSummary(varianceRows.w, 6)));
    }
    byMean += vec4<f32>(dot(q7, readSummary(meanRows.x, 7)), dot(q7, readSummary(meanRows.y, 7)), dot(q7, readSummary(meanRows.z, 7)), dot(q7, readSummary(meanRows.w, 7)));
    {
      let squared = q7 * q7;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 7)), dot(squared, readSummary(varianceRows.y, 7)), dot(squared, readSummary(varianceRows.z, 7)), dot(squared, readSummary(varianceRows.w, 7)));
    }
    byMean += vec4<f32>(dot(q8, readSummary(meanRows.x, 8)), dot(q8, readSummary(meanRows.y, 8)), dot(q8, readSummary(meanRows.z, 8)), dot(q8, readSummary(meanRows.w, 8)));
    {
      let squared = q8 * q8;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 8)), dot(squared, readSummary(varianceRows.y, 8)), dot(squared, readSummary(varianceRows.z, 8)), dot(squared, readSummary(varianceRows.w, 8)));
    }
    byMean += vec4<f32>(dot(q9, readSummary(meanRows.x, 9)), dot(q9, readSummary(meanRows.y, 9)), dot(q9, readSummary(meanRows.z, 9)), dot(q9, readSummary(meanRows.w, 9)));
    {
      let squared = q9 * q9;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 9)), dot(squared, readSummary(varianceRows.y, 9)), dot(squared, readSummary(varianceRows.z, 9)), dot(squared, readSummary(varianceRows.w, 9)));
    }
    byMean += vec4<f32>(dot(q10, readSummary(meanRows.x, 10)), dot(q10, readSummary(meanRows.y, 10)), dot(q10, readSummary(meanRows.z, 10)), dot(q10, readSummary(meanRows.w, 10)));
    {
      let squared = q10 * q10;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 10)), dot(squared, readSummary(varianceRows.y, 10)), dot(squared, readSummary(varianceRows.z, 10)), dot(squared, readSummary(varianceRows.w, 10)));
    }
    byMean += vec4<f32>(dot(q11, readSummary(meanRows.x, 11)), dot(q11, readSummary(meanRows.y, 11)), dot(q11, readSummary(meanRows.z, 11)), dot(q11, readSummary(meanRows.w, 11)));
    {
      let squared = q11 * q11;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 11)), dot(squared, readSummary(varianceRows.y, 11)), dot(squared, readSummary(varianceRows.z, 11)), dot(squared, readSummary(varianceRows.w, 11)));
    }
    byMean += vec4<f32>(dot(q12, readSummary(meanRows.x, 12)), dot(q12, readSummary(meanRows.y, 12)), dot(q12, readSummary(meanRows.z, 12)), dot(q12, readSummary(meanRows.w, 12)));
    {
      let squared = q12 * q12;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 12)), dot(squared, readSummary(varianceRows.y, 12)), dot(squared, readSummary(varianceRows.z, 12)), dot(squared, readSummary(varianceRows.w, 12)));
    }
    byMean += vec4<f32>(dot(q13, readSummary(meanRows.x, 13)), dot(q13, readSummary(meanRows.y, 13)), dot(q13, readSummary(meanRows.z, 13)), dot(q13, readSummary(meanRows.w, 13)));
    {
      let squared = q13 * q13;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 13)), dot(squared, readSummary(varianceRows.y, 13)), dot(squared, readSummary(varianceRows.z, 13)), dot(squared, readSummary(varianceRows.w, 13)));
    }
    byMean += vec4<f32>(dot(q14, readSummary(meanRows.x, 14)), dot(q14, readSummary(meanRows.y, 14)), dot(q14, readSummary(meanRows.z, 14)), dot(q14, readSummary(meanRows.w, 14)));
    {
      let squared = q14 * q14;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 14)), dot(squared, readSummary(varianceRows.y, 14)), dot(squared, readSummary(varianceRows.z, 14)), dot(squared, readSummary(varianceRows.w, 14)));
    }
    byMean += vec4<f32>(dot(q15, readSummary(meanRows.x, 15)), dot(q15, readSummary(meanRows.y, 15)), dot(q15, readSummary(meanRows.z, 15)), dot(q15, readSummary(meanRows.w, 15)));
    {
      let squared = q15 * q15;
      byVariance += vec4<f32>(dot(squared, readSummary(varianceRows.x, 15)), dot(squared, readSummary(varianceRows.y, 15)), dot(squared, readSummary(varianceRows.z, 15)), dot(squared, readSummary(varianceRows.w, 15)));
    }
    let counts = vec4<f32>(countOf(four.x, end), countOf(four.y, end), countOf(four.z, end), countOf(four.w, end));
    let scores = select(vec4<f32>(masked), summaryScore(byMean, byVariance, counts), isFound);
    let newMax = max(rowMax, max(max(scores.x, scores.y), max(scores.z, scores.w)));
    let rescale = exp2(rowMax - newMax);
    let weights = exp2(scores - newMax);
    rowMax = newMax;
    rowSum = rowSum * rescale + dot(weights, vec4<f32>(1.0));
    values[0] = values[0] * rescale + weights.x * readValue(meanRows.x, 0) + weights.y * readValue(meanRows.y, 0) + weights.z * readValue(meanRows.z, 0) + weights.w * readValue(meanRows.w, 0);
    values[1] = values[1] * rescale + weights.x * readValue(meanRows.x, 1) + weights.y * readValue(meanRows.y, 1) + weights.z * readValue(meanRows.z, 1) + weights.w * readValue(meanRows.w, 1);
    values[2] = values[2] * rescale + weights.x * readValue(meanRows.x, 2) + weights.y * readValue(meanRows.y, 2) + weights.z * readValue(meanRows.z, 2) + weights.w * readValue(meanRows.w, 2);
    values[3] = values[3] * rescale + weights.x * readValue(meanRows.x, 3) + weights.y * readValue(meanRows.y, 3) + weights.z * readValue(meanRows.z, 3) + weights.w * readValue(meanRows.w, 3);
    values[4] = values[4] * rescale + weights.x * readValue(meanRows.x, 4) + weights.y * readValue(meanRows.y, 4) + weights.z * readValue(meanRows.z, 4) + weights.w * readValue(meanRows.w, 4);
    values[5] = values[5] * rescale + weights.x * readValue(meanRows.x, 5) + weights.y * readValue(meanRows.y, 5) + weights.z * readValue(meanRows.z, 5) + weights.w * readValue(meanRows.w, 5);
    values[6] = values[6] * rescale + weights.x * readValue(meanRows.x, 6) + weights.y * readValue(meanRows.y, 6) + weights.z * readValue(meanRows.z, 6) + weights.w * readValue(meanRows.w, 6);
    values[7] = values[7] * rescale + weights.x * readValue(meanRows.x, 7) + weights.y * readValue(meanRows.y, 7) + weights.z * readValue(meanRows.z, 7) + weights.w * readValue(meanRows.w, 7);
    values[8] = values[8] * rescale + weights.x * readValue(meanRows.x, 8) + weights.y * readValue(meanRows.y, 8) + weights.z * readValue(meanRows.z, 8) + weights.w * readValue(meanRows.w, 8);
    values[9] = values[9] * rescale + weights.x * readValue(meanRows.x, 9) + weights.y * readValue(meanRows.y, 9) + weights.z * readValue(meanRows.z, 9) + weights.w * readValue(meanRows.w, 9);
    values[10] = values[10] * rescale + weights.x * readValue(meanRows.x, 10) + weights.y * readValue(meanRows.y, 10) + weights.z * readValue(meanRows.z, 10) + weights.w * readValue(meanRows.w, 10);
    values[11] = values[11] * rescale + weights.x * readValue(meanRows.x, 11) + weights.y * readValue(meanRows.y, 11) + weights.z * readValue(meanRows.z, 11) + weights.w * readValue(meanRows.w, 11);
    values[12] = values[12] * rescale + weights.x * readValue(meanRows.x, 12) + weights.y * readValue(meanRows.y, 12) + weights.z * readValue(meanRows.z, 12) + weights.w * readValue(meanRows.w, 12);
    values[13] = values[13] * rescale + weights.x * readValue(meanRows.x, 13) + weights.y * readValue(meanRows.y, 13) + weights.z * readValue(meanRows.z, 13) + weights.w * readValue(meanRows.w, 13);
    values[14] = values[14] * rescale + weights.x * readValue(meanRows.x, 14) + weights.y * readValue(meanRows.y, 14) + weights.z * readValue(meanRows.z, 14) + weights.w * readValue(meanRows.w, 14);
    values[15] = values[15] * rescale + weights.x * readValue(meanRows.x, 15) + weights.y * readValue(meanRows.y, 15) + weights.z * readValue(meanRows.z, 15) + weights.w * readValue(meanRows.w, 15);
    values[16] = values[16] * rescale + weights.x * readValue(meanRows.x, 16) + weights.y * readValue(meanRows.y, 16) + weights.z * readValue(meanRows.z, 16) + weights.w * readValue(meanRows.w, 16);
    values[17] = values[17] * rescale + weights.x * readValue(meanRows.x, 17) + weights.y * readValue(meanRows.y, 17) + weights.z * readValue(meanRows.z, 17) + weights.w * readValue(meanRows.w, 17);
    values[18] = values[18] * rescale + weights.x * readValue(meanRows.x, 18) + weights.y * readValue(meanRows.y, 18) + weights.z * readValue(meanRows.z, 18) + weights.w * readValue(meanRows.w, 18);
    values[19] = values[19] * rescale + weights.x * readValue(meanRows.x, 19) + weights.y * readValue(meanRows.y, 19) + weights.z * readValue(meanRows.z, 19) + weights.w * readValue(meanRows.w, 19);
  }

  let at = queryRow * 21;
  result[at + 0] = values[0];
    result[at + 1] = values[1];
    result[at + 2] = values[2];
    result[at + 3] = values[3];
    result[at + 4] = values[4];
    result[at + 5] = values[5];
    result[at + 6] = values[6];
    result[at + 7] = values[7];
    result[at + 8] = values[8];
    result[at + 9] = values[9];
    result[at + 10] = values[10];
    result[at + 11] = values[11];
    result[at + 12] = values[12];
    result[at + 13] = values[13];
    result[at + 14] = values[14];
    result[at + 15] = values[15];
    result[at + 16] = values[16];
    result[at + 17] = values[17];
    result[at + 18] = values[18];
    result[at + 19] = values[19];
  result[at + 20] = vec4<f32>(rowMax, rowSum, 0.0, 0.0);
}
