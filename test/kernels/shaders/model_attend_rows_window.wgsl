// A workgroup takes up to 8 query rows that share a key head, of its 8 such tiles, and a chunk of the keys. It walks over
// them, 256 a round, with an online softmax. First an invocation computes the scores of 2 keys with all query rows, in registers; their
// weights go to workgroup memory. Then it adds up eight columns of the values over every 16th key, in registers; these sums are added
// up at the end, a query row at a time.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;

fn rowOf(token : i32, head : i32) -> i32 {
  return token * uniforms.projectedShape.y + head * 64;
}

fn rowScale(token : i32, head : i32) -> f32 {
  let first = rowOf(token, head);
  var sum = 0.0;
  for (var i = 0; i < 64; i++) {
    let value = projected[first + i];
    sum = fma(value, value, sum);
  }
  return inverseSqrt(sum / 64.0 + uniforms.epsilon);
}

fn rotated(token : i32, head : i32, column : i32, scale : f32) -> f32 {
  let first = rowOf(token, head);
  let partner = (column + 32) % 64;
  let angle = (span[0] + token) * 64 + column;
  return projected[first + column] * scale * norm[head * 64 + column] * cos[angle] + projected[first + partner] * scale * norm[head * 64 + partner] * signedSin[angle];
}
// One value of each query row.
alias Members = array<vec4<f32>, 2>;
var<workgroup> query : array<array<vec4<f32>, 16>, 8>;
// Keys that each query row sees.
var<workgroup> ends : array<i32, 8>;
// What is reduced; the weights of a round, by keys; or the sums of a query row, two for each invocation.
var<workgroup> memory : array<vec4<f32>, 512>;
var<workgroup> isIdle : u32;

fn unpacked(words : vec2<i32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(bitcast<u32>(words.x)), unpack2x16float(bitcast<u32>(words.y)));
}

fn largestOf(x : Members) -> Members {
  let local = i32(min(localIndex, 127u));
  // Barrier: what memory holds until now has been read.
  workgroupBarrier();
  memory[0 + local] = x[0];
    memory[128 + local] = x[1];
  for (var stride = 64; stride > 0; stride /= 2) {
    // Barrier: what to combine with is written by other invocations.
    workgroupBarrier();
    if (local < stride) {
      memory[0 + local] = max(memory[0 + local], memory[0 + local + stride]);
    memory[128 + local] = max(memory[128 + local], memory[128 + local + stride]);
    }
  }
  // Barriers: all read the result, which is overwritten next.
  workgroupBarrier();
  let total = Members(memory[0], memory[128]);
  workgroupBarrier();
  return total;
}

fn sumsOf(x : Members) -> Members {
  let local = i32(min(localIndex, 127u));
  // Barrier: what memory holds until now has been read.
  workgroupBarrier();
  memory[0 + local] = x[0];
    memory[128 + local] = x[1];
  for (var stride = 64; stride > 0; stride /= 2) {
    // Barrier: what to combine with is written by other invocations.
    workgroupBarrier();
    if (local < stride) {
      memory[0 + local] = memory[0 + local] + memory[0 + local + stride];
    memory[128 + local] = memory[128 + local] + memory[128 + local + stride];
    }
  }
  // Barriers: all read the result, which is overwritten next.
  workgroupBarrier();
  let total = Members(memory[0], memory[128]);
  workgroupBarrier();
  return total;
}

// Where the state of a query row, of those that share the key head of a workgroup, begins: see softmax_state.ts.
fn stateOf(member : i32, item : i32) -> i32 {
  let group = uniforms.heads / uniforms.cacheShape.y;
  let keyHead = item / (8 * uniforms.chunks);
  let row = member / group * uniforms.heads + keyHead * group + member % group;
  return (row * uniforms.chunks + item % uniforms.chunks) * 17;
}

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let keyHeads = uniforms.cacheShape.y;
  let capacity = uniforms.cacheShape.z;
  let group = uniforms.heads / keyHeads;
  let chunks = uniforms.chunks;
  // A workgroup too many computes the last one again.
  let item = min(workgroupIndex(), keyHeads * 8 * chunks - 1);
  let keyHead = item / (8 * chunks);
  let firstMember = item / chunks % 8 * 8;
  let memberCount = min(8, group * span[1] - firstMember);
  let keys = span[0] + span[1];
  // From what the first token sees.
  let firstSeen = max(0, span[0] + 1 - uniforms.window);
  let chunk = max(128, (keys - firstSeen + chunks - 1) / chunks);
  let first = firstSeen + item % chunks * chunk;
  let end = min(keys, first + chunk);
  if (local < memberCount) {
    let member = firstMember + local;
    ends[local] = span[0] + member / group + 1;
    if (first >= keys) {
      // Nothing was seen: without weight, so that the values do not matter.
      result[stateOf(member, item) + 16] = vec4<f32>(lowest, 0.0, 0.0, 0.0);
    }
  }
  if (local == 0) {
    isIdle = select(0u, 1u, first >= keys || memberCount <= 0);
  }
  if (workgroupUniformLoad(&isIdle) == 1u) {
    return;
  }
  for (var i = local; i < 128; i += 128) {
    // Places without a query row hold the last one again.
    let member = firstMember + min(i / 16, memberCount - 1);
    let token = member / group;
    let head = keyHead * group + member % group;
    let scale = rowScale(token, head);
    let vector = i % 16;
    // All four at once: two invocations must not write to one vector.
    query[i / 16][vector] = uniforms.logitScale * vec4<f32>(
      rotated(token, head, 4 * vector + 0, scale), rotated(token, head, 4 * vector + 1, scale), rotated(token, head, 4 * vector + 2, scale), rotated(token, head, 4 * vector + 3, scale));
  }
  let vector = local % 8;
  let slice = local / 8;
  let keyRow = keyHead * capacity;
  let valueRow = (keyHeads + keyHead) * capacity;
  var rowMax = Members(vec4<f32>(lowest), vec4<f32>(lowest));
  var rowSum = Members();
  var a0 = vec4<f32>(0.0); var b0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0); var b1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0); var b2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0); var b3 = vec4<f32>(0.0);
    var a4 = vec4<f32>(0.0); var b4 = vec4<f32>(0.0);
    var a5 = vec4<f32>(0.0); var b5 = vec4<f32>(0.0);
    var a6 = vec4<f32>(0.0); var b6 = vec4<f32>(0.0);
    var a7 = vec4<f32>(0.0); var b7 = vec4<f32>(0.0);
  // Barrier: all read the query rows, and what they see.
  workgroupBarrier();
  let endsOf0 = min(vec4<i32>(ends[0], ends[1], ends[2], ends[3]), vec4<i32>(end));
  let startsOf0 = vec4<i32>(ends[0], ends[1], ends[2], ends[3]) - uniforms.window;
    let endsOf1 = min(vec4<i32>(ends[4], ends[5], ends[6], ends[7]), vec4<i32>(end));
  let startsOf1 = vec4<i32>(ends[4], ends[5], ends[6], ends[7]) - uniforms.window;
  // As many rounds for every chunk, which the barriers need: the last chunk may have fewer keys.
  for (var round = 0; round * 256 < chunk; round++) {
    let start = first + round * 256;
    let key0 = start + local + 0;
    let row0 = (keyRow + min(key0, end - 1)) * 8;
    var scores0 = Members();
    let key1 = start + local + 128;
    let row1 = (keyRow + min(key1, end - 1)) * 8;
    var scores1 = Members();
    for (var v = 0; v < 8; v++) {
      let words0 = cache[row0 + v];
      let x0 = unpacked(words0.xy);
      let y0 = unpacked(words0.zw);
    let words1 = cache[row1 + v];
      let x1 = unpacked(words1.xy);
      let y1 = unpacked(words1.zw);
      {
        let x = query[0][2 * v];
        let y = query[0][2 * v + 1];
        scores0[0][0] += dot(x, x0) + dot(y, y0);
    scores1[0][0] += dot(x, x1) + dot(y, y1);
      }
    {
        let x = query[1][2 * v];
        let y = query[1][2 * v + 1];
        scores0[0][1] += dot(x, x0) + dot(y, y0);
    scores1[0][1] += dot(x, x1) + dot(y, y1);
      }
    {
        let x = query[2][2 * v];
        let y = query[2][2 * v + 1];
        scores0[0][2] += dot(x, x0) + dot(y, y0);
    scores1[0][2] += dot(x, x1) + dot(y, y1);
      }
    {
        let x = query[3][2 * v];
        let y = query[3][2 * v + 1];
        scores0[0][3] += dot(x, x0) + dot(y, y0);
    scores1[0][3] += dot(x, x1) + dot(y, y1);
      }
    {
        let x = query[4][2 * v];
        let y = query[4][2 * v + 1];
        scores0[1][0] += dot(x, x0) + dot(y, y0);
    scores1[1][0] += dot(x, x1) + dot(y, y1);
      }
    {
        let x = query[5][2 * v];
        let y = query[5][2 * v + 1];
        scores0[1][1] += dot(x, x0) + dot(y, y0);
    scores1[1][1] += dot(x, x1) + dot(y, y1);
      }
    {
        let x = query[6][2 * v];
        let y = query[6][2 * v + 1];
        scores0[1][2] += dot(x, x0) + dot(y, y0);
    scores1[1][2] += dot(x, x1) + dot(y, y1);
      }
    {
        let x = query[7][2 * v];
        let y = query[7][2 * v + 1];
        scores0[1][3] += dot(x, x0) + dot(y, y0);
    scores1[1][3] += dot(x, x1) + dot(y, y1);
      }
    }
    var newMax = rowMax;
    let isSeen0_0 = (vec4<i32>(key0) < endsOf0) & (vec4<i32>(key0) >= startsOf0);
    newMax[0] = max(newMax[0], select(vec4<f32>(lowest), scores0[0], isSeen0_0));
    let isSeen1_0 = (vec4<i32>(key1) < endsOf0) & (vec4<i32>(key1) >= startsOf0);
    newMax[0] = max(newMax[0], select(vec4<f32>(lowest), scores1[0], isSeen1_0));
    let isSeen0_1 = (vec4<i32>(key0) < endsOf1) & (vec4<i32>(key0) >= startsOf1);
    newMax[1] = max(newMax[1], select(vec4<f32>(lowest), scores0[1], isSeen0_1));
    let isSeen1_1 = (vec4<i32>(key1) < endsOf1) & (vec4<i32>(key1) >= startsOf1);
    newMax[1] = max(newMax[1], select(vec4<f32>(lowest), scores1[1], isSeen1_1));
    newMax = largestOf(newMax);
    let rescale = Members(exp2(rowMax[0] - newMax[0]), exp2(rowMax[1] - newMax[1]));
    rowSum[0] *= rescale[0];
    rowSum[1] *= rescale[1];
    {
      let weights = select(vec4<f32>(0.0), exp2(scores0[0] - newMax[0]), isSeen0_0);
      rowSum[0] += weights;
      memory[0 + local] = weights;
    }
    {
      let weights = select(vec4<f32>(0.0), exp2(scores1[0] - newMax[0]), isSeen1_0);
      rowSum[0] += weights;
      memory[128 + local] = weights;
    }
    {
      let weights = select(vec4<f32>(0.0), exp2(scores0[1] - newMax[1]), isSeen0_1);
      rowSum[1] += weights;
      memory[256 + local] = weights;
    }
    {
      let weights = select(vec4<f32>(0.0), exp2(scores1[1] - newMax[1]), isSeen1_1);
      rowSum[1] += weights;
      memory[384 + local] = weights;
    }
    a0 *= rescale[0][0]; b0 *= rescale[0][0];
    a1 *= rescale[0][1]; b1 *= rescale[0][1];
    a2 *= rescale[0][2]; b2 *= rescale[0][2];
    a3 *= rescale[0][3]; b3 *= rescale[0][3];
    a4 *= rescale[1][0]; b4 *= rescale[1][0];
    a5 *= rescale[1][1]; b5 *= rescale[1][1];
    a6 *= rescale[1][2]; b6 *= rescale[1][2];
    a7 *= rescale[1][3]; b7 *= rescale[1][3];
    rowMax = newMax;
    // Barrier: the values take weights that others wrote.
    workgroupBarrier();
    if (slice < 16) {
      let count = min(256, end - start);
      for (var i = slice; i < count; i += 16) {
        let words = cache[(valueRow + start + i) * 8 + vector];
        let x = unpacked(words.xy);
        let y = unpacked(words.zw);
        let weights0 = memory[0 + i];
    let weights1 = memory[256 + i];
        a0 += weights0[0] * x; b0 += weights0[0] * y;
    a1 += weights0[1] * x; b1 += weights0[1] * y;
    a2 += weights0[2] * x; b2 += weights0[2] * y;
    a3 += weights0[3] * x; b3 += weights0[3] * y;
    a4 += weights1[0] * x; b4 += weights1[0] * y;
    a5 += weights1[1] * x; b5 += weights1[1] * y;
    a6 += weights1[2] * x; b6 += weights1[2] * y;
    a7 += weights1[3] * x; b7 += weights1[3] * y;
      }
    }
  }
  let total = sumsOf(rowSum);
  {
    if (slice < 16) {
      memory[2 * local] = a0;
      memory[2 * local + 1] = b0;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 0 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 0, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[0][0], total[0][0], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
    {
    if (slice < 16) {
      memory[2 * local] = a1;
      memory[2 * local + 1] = b1;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 1 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 1, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[0][1], total[0][1], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
    {
    if (slice < 16) {
      memory[2 * local] = a2;
      memory[2 * local + 1] = b2;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 2 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 2, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[0][2], total[0][2], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
    {
    if (slice < 16) {
      memory[2 * local] = a3;
      memory[2 * local + 1] = b3;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 3 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 3, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[0][3], total[0][3], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
    {
    if (slice < 16) {
      memory[2 * local] = a4;
      memory[2 * local + 1] = b4;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 4 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 4, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[1][0], total[1][0], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
    {
    if (slice < 16) {
      memory[2 * local] = a5;
      memory[2 * local + 1] = b5;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 5 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 5, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[1][1], total[1][1], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
    {
    if (slice < 16) {
      memory[2 * local] = a6;
      memory[2 * local + 1] = b6;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 6 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 6, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[1][2], total[1][2], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
    {
    if (slice < 16) {
      memory[2 * local] = a7;
      memory[2 * local + 1] = b7;
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < 16 && 7 < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < 16; s++) {
        sum += memory[s * 16 + local];
      }
      let state = stateOf(firstMember + 7, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + 16] = vec4<f32>(rowMax[1][3], total[1][3], 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }
}
