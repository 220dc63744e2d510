// A workgroup takes 4 rows, and 16 neighbouring invocations a row, side by side, so that they read and write
// neighbouring elements. An invocation adds up the squares of its elements in a register; the sums of a row are added up
// in workgroup memory. The elements are read a second time, from the cache, to be scaled.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
var<workgroup> sums : array<f32, 64>;

fn main(index : i32) {
  let local = i32(min(localIndex, 63u));
  let lane = local % 16;
  let row = workgroupIndex() * 4 + local / 16;
  // Rows past the last one take part in the barriers, with nothing to add.
  let exists = row < uniforms.outShape.x;
  let first = row * 64;
  let end = select(0, 64, exists);
  var sum = vec4<f32>(0.0);
  for (var i = lane; i < end; i += 16) {
    let element = x[first + i];
    sum += element * element;
  }
  sums[local] = dot(sum, vec4<f32>(1.0));
  for (var stride = 8; stride > 0; stride /= 2) {
    // Barrier: the sums to add are written by other invocations.
    workgroupBarrier();
    if (lane < stride) {
      sums[local] += sums[local + stride];
    }
  }
  // Barrier: all invocations of a row read its sum.
  workgroupBarrier();
  let scale = inverseSqrt(sums[local - lane] / 256.0 + uniforms.epsilon);
  for (var i = lane; i < end; i += 16) {
    result[first + i] = x[first + i] * scale * weight[i] + residual[first + i];
  }
}
