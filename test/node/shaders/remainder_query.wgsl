// An invocation owns a query row and walks over the blocks that the row skips: nothing is shared.


fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return (queryBlock / uniforms.blocksPerSegment) * uniforms.blocksPerSegment;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let scored = scoredBlocks(queryBlock);
  return min(scored + uniforms.blocksPerSegment, uniforms.keyBlocks);
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readDy(row : i32, vector : i32) -> vec4<f32> { return dy[row * 16 + vector]; }
fn readSummary(row : i32, vector : i32) -> vec4<f32> { return summaries[row * 16 + vector]; }
fn readValueMean(row : i32, vector : i32) -> vec4<f32> { return valueMeans[row * 16 + vector]; }

struct Skipped {
  weight : f32,
  // Gradient by the score, and by its part of the variance.
  score : f32,
  correction : f32,
};

// Block of [batch * heads, keyBlocks]; its mean is in row `block` of the summaries, its variance in row `varianceRow`.
fn skippedBlock(queryRow : i32, block : i32, varianceRow : i32) -> Skipped {
  let known = statistics[queryRow];
  var byMean = 0.0;
  var byVariance = 0.0;
  for (var vector = 0; vector < 16; vector++) {
    let q = uniforms.logitScale * readQuery(queryRow, vector);
    byMean += dot(q, readSummary(block, vector));
    byVariance += dot(q * q, readSummary(varianceRow, vector));
  }
  var product = 0.0;
  for (var vector = 0; vector < 16; vector++) {
    product += dot(readDy(queryRow, vector), readValueMean(block, vector));
  }
  let correction = uniforms.varianceScale * byVariance;
  let first = (block % uniforms.keyBlocks) * uniforms.blockSize;
  let count = min(f32(uniforms.blockSize), known.w - f32(first));
  let weight = exp2(byMean + min(correction, uniforms.varianceCap) + log2(count) - known.x);
  let score = weight * (product - known.y);
  return Skipped(weight, score, select(0.0, score, correction < uniforms.varianceCap));
}
fn readKept(row : i32, vector : i32) -> vec4<f32> { return keptGradient[row * 16 + vector]; }
fn writeGradient(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }
fn main(index : i32) {
  let queryRow = workgroupIndex() * 64 + i32(localIndex);
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
  var gradient = array<vec4<f32>, 16>();
  for (var keyBlock = 0; keyBlock < competing; keyBlock++) {
    // The list is in ascending order.
    if (entry < listEnd && blockLists[entry] == keyBlock) {
      entry++;
    } else {
      let block = head * uniforms.keyBlocks + keyBlock;
      let varianceRow = allHeads * uniforms.keyBlocks + block;
      let x = skippedBlock(queryRow, block, varianceRow);
      for (var vector = 0; vector < 16; vector++) {
        let q = uniforms.scale * readQuery(queryRow, vector);
        gradient[vector] += x.score * readSummary(block, vector) + x.correction * q * readSummary(varianceRow, vector);
      }
    }
  }
  for (var vector = 0; vector < 16; vector++) {
    writeGradient(queryRow, vector, readKept(queryRow, vector) + uniforms.scale * gradient[vector]);
  }
}
