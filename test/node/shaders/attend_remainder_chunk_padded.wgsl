// An invocation owns one query row, in registers; a workgroup 64 rows of one query block, or what is left of it. All its
// invocations read the same summary at a time, straight from global memory: one read serves them all. Nothing is shared.

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

fn summaryScore(byMean : f32, byVariance : f32, count : f32) -> f32 {
  return byMean + min(uniforms.varianceScale * byVariance, f32(uniforms.varianceCap)) + log2(count);
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
  let blocksWithKeys = (end + uniforms.blockSize - 1) / uniforms.blockSize;
  for (var block = 0; block < min(scoredBlocks(queryBlock), blocksWithKeys); block++) {
    // The list is in ascending order.
    if (entry < listEnd && blockLists[entry] == block) {
      entry++;
      continue;
    }
    let meanRow = head * uniforms.keyBlocks + block;
    let varianceRow = allHeads * uniforms.keyBlocks + meanRow;
    var byMean = 0.0;
    var byVariance = 0.0;
    byMean += dot(q0, readSummary(meanRow, 0));
    byVariance += dot(q0 * q0, readSummary(varianceRow, 0));
    byMean += dot(q1, readSummary(meanRow, 1));
    byVariance += dot(q1 * q1, readSummary(varianceRow, 1));
    byMean += dot(q2, readSummary(meanRow, 2));
    byVariance += dot(q2 * q2, readSummary(varianceRow, 2));
    byMean += dot(q3, readSummary(meanRow, 3));
    byVariance += dot(q3 * q3, readSummary(varianceRow, 3));
    byMean += dot(q4, readSummary(meanRow, 4));
    byVariance += dot(q4 * q4, readSummary(varianceRow, 4));
    byMean += dot(q5, readSummary(meanRow, 5));
    byVariance += dot(q5 * q5, readSummary(varianceRow, 5));
    byMean += dot(q6, readSummary(meanRow, 6));
    byVariance += dot(q6 * q6, readSummary(varianceRow, 6));
    byMean += dot(q7, readSummary(meanRow, 7));
    byVariance += dot(q7 * q7, readSummary(varianceRow, 7));
    byMean += dot(q8, readSummary(meanRow, 8));
    byVariance += dot(q8 * q8, readSummary(varianceRow, 8));
    byMean += dot(q9, readSummary(meanRow, 9));
    byVariance += dot(q9 * q9, readSummary(varianceRow, 9));
    byMean += dot(q10, readSummary(meanRow, 10));
    byVariance += dot(q10 * q10, readSummary(varianceRow, 10));
    byMean += dot(q11, readSummary(meanRow, 11));
    byVariance += dot(q11 * q11, readSummary(varianceRow, 11));
    byMean += dot(q12, readSummary(meanRow, 12));
    byVariance += dot(q12 * q12, readSummary(varianceRow, 12));
    byMean += dot(q13, readSummary(meanRow, 13));
    byVariance += dot(q13 * q13, readSummary(varianceRow, 13));
    byMean += dot(q14, readSummary(meanRow, 14));
    byVariance += dot(q14 * q14, readSummary(varianceRow, 14));
    byMean += dot(q15, readSummary(meanRow, 15));
    byVariance += dot(q15 * q15, readSummary(varianceRow, 15));
    let score = summaryScore(byMean, byVariance, countOf(block, end));
    let newMax = max(rowMax, score);
    let rescale = exp2(rowMax - newMax);
    let weight = exp2(score - newMax);
    rowMax = newMax;
    rowSum = rowSum * rescale + weight;
    values[0] = values[0] * rescale + weight * readValue(meanRow, 0);
    values[1] = values[1] * rescale + weight * readValue(meanRow, 1);
    values[2] = values[2] * rescale + weight * readValue(meanRow, 2);
    values[3] = values[3] * rescale + weight * readValue(meanRow, 3);
    values[4] = values[4] * rescale + weight * readValue(meanRow, 4);
    values[5] = values[5] * rescale + weight * readValue(meanRow, 5);
    values[6] = values[6] * rescale + weight * readValue(meanRow, 6);
    values[7] = values[7] * rescale + weight * readValue(meanRow, 7);
    values[8] = values[8] * rescale + weight * readValue(meanRow, 8);
    values[9] = values[9] * rescale + weight * readValue(meanRow, 9);
    values[10] = values[10] * rescale + weight * readValue(meanRow, 10);
    values[11] = values[11] * rescale + weight * readValue(meanRow, 11);
    values[12] = values[12] * rescale + weight * readValue(meanRow, 12);
    values[13] = values[13] * rescale + weight * readValue(meanRow, 13);
    values[14] = values[14] * rescale + weight * readValue(meanRow, 14);
    values[15] = values[15] * rescale + weight * readValue(meanRow, 15);
    values[16] = values[16] * rescale + weight * readValue(meanRow, 16);
    values[17] = values[17] * rescale + weight * readValue(meanRow, 17);
    values[18] = values[18] * rescale + weight * readValue(meanRow, 18);
    values[19] = values[19] * rescale + weight * readValue(meanRow, 19);
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
