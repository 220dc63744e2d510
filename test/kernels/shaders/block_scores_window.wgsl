// A workgroup computes the row of one query block; an invocation computes every 128th key block. The row itself holds
// the unnormalised values between the steps, each read by the invocation that wrote it, so only the reductions of
// maximum and sum need workgroup memory and barriers.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> reduceBuffer : array<f32, 128>;

fn workgroupSum(x : f32) -> f32 {
  let local = i32(min(localIndex, 127u));
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 64; stride > 0; stride /= 2) {
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
  let local = i32(min(localIndex, 127u));
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 64; stride > 0; stride /= 2) {
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
fn readPooled(row : i32, vector : i32) -> vec4<f32> { return pooled[row * 16 + vector]; }
// Key blocks before the segment in which a position lies.
fn blocksBefore(position : i32) -> i32 {
  return position / uniforms.segmentSize * (uniforms.segmentSize / uniforms.keyBlockSize);
}
fn firstBlock(queryBlock : i32) -> i32 {
  let firstKey = uniforms.firstPosition + queryBlock * uniforms.blockSize - uniforms.window + 1;
  return min(blocksBefore(max(0, firstKey)), uniforms.keyBlocks);
}
// Whether key 0 is in the window of the first row.
fn seesFirstKey(queryBlock : i32) -> bool {
  return uniforms.firstPosition + queryBlock * uniforms.blockSize < uniforms.window;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let lastRow = min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1;
  let lastKey = uniforms.firstPosition + lastRow;
  return min(blocksBefore(lastKey) + uniforms.segmentSize / uniforms.keyBlockSize, uniforms.keyBlocks);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return blocksBefore(uniforms.firstPosition + queryBlock * uniforms.blockSize);
}
fn keyEnd(head : i32) -> i32 {
  return uniforms.keyLength;
}

// log2 of the weight of a key block: the pooled keys stand behind the pooled queries of all heads.
fn logit(row : i32, keyRow : i32) -> f32 {
  let firstKeyRow = uniforms.batch * uniforms.heads * uniforms.queryBlocks;
  var sum = 0.0;
  for (var i = 0; i < 16; i++) {
    sum += dot(readPooled(row, i), readPooled(firstKeyRow + keyRow, i));
  }
  return uniforms.logitScale * sum;
}

fn main(index : i32) {
  let blocks = uniforms.keyBlocks;
  let row = workgroupIndex();
  let queryBlock = row % uniforms.queryBlocks;
  let head = row / uniforms.queryBlocks;
  let exists = head < uniforms.batch * uniforms.heads;
  let unpaddedBlocks = (keyEnd(head) + uniforms.keyBlockSize - 1) / uniforms.keyBlockSize;
  let candidates = min(scoredBlocks(queryBlock), unpaddedBlocks);
  let end = select(0, candidates, exists);
  let first = firstBlock(queryBlock);

  var localMax = -3.4e38f;
  for (var i = i32(localIndex); i < end; i += 128) {
    let x = select(-3.4e38f, logit(row, head * blocks + i), i >= first);
    result[row * blocks + i] = x;
    localMax = max(localMax, x);
  }
  let rowMax = workgroupMax(localMax);
  var localSum = 0.0;
  for (var i = i32(localIndex); i < end; i += 128) {
    let weight = exp2(result[row * blocks + i] - rowMax);
    result[row * blocks + i] = weight;
    localSum += weight;
  }
  let sum = workgroupSum(localSum);
  if (exists) {
    for (var i = i32(localIndex); i < blocks; i += 128) {
      result[row * blocks + i] = select(0.0, result[row * blocks + i] / sum, i >= first && i < end);
    }
  }
}
