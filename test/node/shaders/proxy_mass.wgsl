// A workgroup adds up the scores of one block's keys.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> reduceBuffer : array<f32, 64>;

fn workgroupSum(x : f32) -> f32 {
  let local = i32(localIndex);
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 32; stride > 0; stride /= 2) {
    if (local < stride) {
      reduceBuffer[local] = reduceBuffer[local] + reduceBuffer[local + stride];
    }
    workgroupBarrier();
  }
  let total = reduceBuffer[0];
  // Barrier: the next reduction overwrites the buffer.
  workgroupBarrier();
  return total;
}

fn workgroupMax(x : f32) -> f32 {
  let local = i32(localIndex);
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 32; stride > 0; stride /= 2) {
    if (local < stride) {
      reduceBuffer[local] = max(reduceBuffer[local], reduceBuffer[local + stride]);
    }
    workgroupBarrier();
  }
  let total = reduceBuffer[0];
  // Barrier: the next reduction overwrites the buffer.
  workgroupBarrier();
  return total;
}
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
}
