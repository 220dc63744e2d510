// A workgroup adds up the masses of one query block, once of all key blocks and once of those in its list; an invocation
// takes every 64th of either. The reductions hold the barriers, so every invocation gets there.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> reduceBuffer : array<f32, 64>;

fn workgroupSum(x : f32) -> f32 {
  let local = i32(min(localIndex, 63u));
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
  let local = i32(min(localIndex, 63u));
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
  let keyBlocks = uniforms.massesShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  var all = 0.0;
  for (var i = i32(localIndex); exists && i < keyBlocks; i += 64) {
    all += masses[row * keyBlocks + i];
  }
  var kept = 0.0;
  let list = row * (keyBlocks + 1);
  for (var entry = 1 + i32(localIndex); exists && entry <= blockLists[list]; entry += 64) {
    kept += masses[row * keyBlocks + blockLists[list + entry]];
  }
  let total = workgroupSum(all);
  let keptSum = workgroupSum(kept);
  if (localIndex == 0u && exists) {
    result[row] = select(1.0, keptSum / total, total > 0.0);
  }
}
