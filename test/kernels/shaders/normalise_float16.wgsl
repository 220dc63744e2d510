// A workgroup takes 1 rows, and 64 neighbouring invocations a row, side by side, each of them every 64th eight of values. An
// invocation adds up squares in a register; the sums of a row are added up in workgroup memory. The values are read a second
// time, from the cache, to be scaled.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn float16Word(x : vec2<f32>) -> i32 {
  return bitcast<i32>(pack2x16float(clamp(x, vec2<f32>(-65504.0), vec2<f32>(65504.0))));
}

fn float16Words(a : vec4<f32>, b : vec4<f32>) -> vec4<i32> {
  return vec4<i32>(float16Word(a.xy), float16Word(a.zw), float16Word(b.xy), float16Word(b.zw));
}
var<workgroup> sums : array<f32, 64>;

fn main(index : i32) {
  let local = i32(min(localIndex, 63u));
  let lane = local % 64;
  let row = workgroupIndex() * 1 + local / 64;
  // Rows past the last one take part in the barriers, with nothing to add.
  let exists = row < uniforms.outShape.x;
  let first = row * 112;
  let end = select(0, 112, exists);
  var sum = 0.0;
  for (var i = lane; i < end; i += 64) {
    let a = x[2 * (first + i)];
    let b = x[2 * (first + i) + 1];
    sum += dot(a, a) + dot(b, b);
  }
  sums[local] = sum;
  for (var stride = 32; stride > 0; stride /= 2) {
    // Barrier: the sums to add are written by other invocations.
    workgroupBarrier();
    if (lane < stride) {
      sums[local] += sums[local + stride];
    }
  }
  // Barrier: all invocations of a row read its sum.
  workgroupBarrier();
  let scale = inverseSqrt(sums[local - lane] / 896.0 + uniforms.epsilon);
  for (var i = lane; i < end; i += 64) {
    let a = x[2 * (first + i)] * scale * norm[2 * i];
    let b = x[2 * (first + i) + 1] * scale * norm[2 * i + 1];
    result[first + i] = float16Words(a, b);
  }
}
