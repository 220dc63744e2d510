// A workgroup takes a chunk of the keys for one head and walks over it, 256 keys a round, with an online softmax. First an invocation
// computes the score of a key, in a register; its weight goes to workgroup memory. Then it adds up eight columns of the values over
// every 32th key, in registers; these sums are added up at the end.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> reduceBuffer : array<f32, 256>;

fn workgroupSum(x : f32) -> f32 {
  let local = i32(localIndex);
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 128; stride > 0; stride /= 2) {
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
  for (var stride = 128; stride > 0; stride /= 2) {
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

fn rowScale(row : i32) -> f32 {
  var sum = 0.0;
  for (var i = 0; i < 64; i++) {
    let value = projected[row * 64 + i];
    sum = fma(value, value, sum);
  }
  return inverseSqrt(sum / 64.0 + uniforms.epsilon);
}

fn rotated(row : i32, column : i32, scale : f32) -> f32 {
  let partner = (column + 32) % 64;
  let angle = position[0] * 64 + column;
  return projected[row * 64 + column] * scale * norm[row * 64 + column] * cos[angle] + projected[row * 64 + partner] * scale * norm[row * 64 + partner] * signedSin[angle];
}
var<workgroup> query : array<vec4<f32>, 16>;
var<workgroup> weights : array<f32, 256>;
var<workgroup> sums : array<array<vec4<f32>, 2>, 256>;
var<workgroup> isEmpty : u32;
const lowest = -1e38;

fn unpacked(words : vec2<i32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(bitcast<u32>(words.x)), unpack2x16float(bitcast<u32>(words.y)));
}

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.x;
  // A workgroup too many computes the last one again.
  let item = min(workgroupIndex(), heads * 16 - 1);
  let head = item / 16;
  let keyHeads = uniforms.cacheShape.y;
  let keyHead = head / (heads / keyHeads);
  let capacity = uniforms.cacheShape.z;
  let keys = position[0] + 1;
  let chunk = max(64, (keys + 15) / 16);
  let first = (item % 16) * chunk;
  let end = min(keys, first + chunk);
  let at = item * 17;
  if (local == 0) {
    isEmpty = select(0u, 1u, first >= keys);
  }
  if (workgroupUniformLoad(&isEmpty) == 1u) {
    // Weightless: what the values are does not matter.
    if (local == 0) {
      result[at] = vec4<f32>(lowest, 0.0, 0.0, 0.0);
    }
    return;
  }
  if (local < 16) {
    let scale = rowScale(head);
    for (var i = 0; i < 4; i++) {
      query[local][i] = rotated(head, 4 * local + i, scale) * uniforms.logitScale;
    }
  }
  let vector = local % 8;
  let slice = local / 8;
  var rowMax = lowest;
  var rowSum = 0.0;
  var output = array<vec4<f32>, 2>();
  // Barrier: all read the query.
  workgroupBarrier();
  // As many rounds for every chunk, which the barriers need: the last chunk may have fewer keys.
  for (var round = 0; round * 256 < chunk; round++) {
    let start = first + round * 256;
    let key = start + local;
    var score = lowest;
    if (key < end) {
      score = 0.0;
      let row = (keyHead * capacity + key) * 8;
      for (var v = 0; v < 8; v++) {
        let words = cache[row + v];
        score += dot(query[2 * v], unpacked(words.xy)) + dot(query[2 * v + 1], unpacked(words.zw));
      }
    }
    // Its barriers also keep the weights of the round before until everybody has read them.
    let newMax = workgroupMax(max(score, rowMax));
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    let weight = select(0.0, exp2(score - newMax), key < end);
    rowSum = rowSum * rescale + weight;
    weights[local] = weight;
    // Barrier: the values take weights that others wrote.
    workgroupBarrier();
    output[0] *= rescale;
    output[1] *= rescale;
    if (slice < 32) {
      let count = min(256, end - start);
      for (var i = slice; i < count; i += 32) {
        let words = cache[((keyHeads + keyHead) * capacity + start + i) * 8 + vector];
        output[0] += weights[i] * unpacked(words.xy);
        output[1] += weights[i] * unpacked(words.zw);
      }
    }
  }
  let total = workgroupSum(rowSum);
  if (slice < 32) {
    sums[local] = output;
  }
  for (var stride = 16; stride > 0; stride /= 2) {
    // Barrier: the sums to add are written by other invocations.
    workgroupBarrier();
    if (slice < stride) {
      sums[local][0] += sums[local + stride * 8][0];
      sums[local][1] += sums[local + stride * 8][1];
    }
  }
  // No barrier: an invocation writes out what it added up itself.
  if (local == 0) {
    result[at] = vec4<f32>(rowMax, total, 0.0, 0.0);
  }
  if (slice == 0) {
    result[at + 1 + 2 * vector] = sums[local][0];
    result[at + 2 + 2 * vector] = sums[local][1];
  }
}
