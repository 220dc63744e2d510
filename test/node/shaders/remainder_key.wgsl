// A workgroup owns a key block and walks over the query rows, 64 at a time. Each invocation first computes what the
// block is to one of the rows, for workgroup memory; then it adds up, in registers, its vec4 columns of all of them.


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
var<workgroup> found : array<vec4<f32>, 64>;

fn main(index : i32) {
  let local = i32(localIndex);
  let allHeads = uniforms.outShape.x;
  let keyBlock = workgroupIndex() % uniforms.keyBlocks;
  let exists = workgroupIndex() < allHeads * uniforms.keyBlocks;
  let block = min(workgroupIndex(), allHeads * uniforms.keyBlocks - 1);
  let head = block / uniforms.keyBlocks;
  let firstQueryRow = head * uniforms.queryLength;
  let queryBlocks = uniforms.keptShape.z;
  let column0 = local + 0;
  var means0 = vec4<f32>(0.0);
  var variances0 = vec4<f32>(0.0);
  for (var first = 0; first < uniforms.queryLength; first += 64) {
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
    for (var i = 0; i < min(64, uniforms.queryLength - first); i++) {
      let x = found[i];
      let row = firstQueryRow + first + i;
      if (x.w != 0.0) {
        if (column0 < 16) {
          let q = readQuery(row, column0);
          means0 += x.y * q;
          variances0 += x.z * q * q;
        } else if (column0 < 32) {
          means0 += x.x * readDy(row, column0 - 16);
        }
      }
    }
    // Barrier: the next rows overwrite these.
    workgroupBarrier();
  }
  let at = block * 48;
  if (exists) {
    if (column0 < 16) {
      result[at + column0] = uniforms.scale * means0;
      result[at + 16 + column0] = 0.5 * uniforms.scale * uniforms.scale * variances0;
    } else if (column0 < 32) {
      result[at + 16 + column0] = means0;
    }
  }
}
