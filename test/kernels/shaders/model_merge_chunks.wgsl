// An invocation computes one value: the sums of the chunks, each brought to the largest maximum.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let item = workgroupIndex() * 64 + i32(localIndex);
  if (item >= uniforms.outShape.y) {
    return;
  }
  let first = (item / 64) * 1088;
  var rowMax = states[first];
  for (var chunk = 1; chunk < 16; chunk++) {
    rowMax = max(rowMax, states[first + chunk * 68]);
  }
  var sum = 0.0;
  var output = 0.0;
  for (var chunk = 0; chunk < 16; chunk++) {
    let at = first + chunk * 68;
    let scale = exp2(states[at] - rowMax);
    sum = fma(states[at + 1], scale, sum);
    // A chunk without keys has written no values.
    if (scale > 0.0) {
      output = fma(states[at + 4 + item % 64], scale, output);
    }
  }
  result[item] = output / sum;
}
