// One workgroup: an invocation looks at every 256th logit, then the largest of all is found in workgroup memory.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
var<workgroup> values : array<f32, 256>;
var<workgroup> ids : array<i32, 256>;

fn main(index : i32) {
  let local = i32(localIndex);
  let count = uniforms.logitsShape.y;
  var largest = -3.4e38;
  var id = count;
  for (var i = local; i < count; i += 256) {
    if (logits[i] > largest) {
      largest = logits[i];
      id = i;
    }
  }
  values[local] = largest;
  ids[local] = id;
  for (var stride = 128; stride > 0; stride /= 2) {
    // Barrier: what to compare with is written by other invocations.
    workgroupBarrier();
    if (local < stride) {
      let other = local + stride;
      if (values[other] > values[local] || (values[other] == values[local] && ids[other] < ids[local])) {
        values[local] = values[other];
        ids[local] = ids[other];
      }
    }
  }
  if (local == 0 && workgroupIndex() == 0) {
    result[0] = min(ids[0], count - 1);
  }
}
