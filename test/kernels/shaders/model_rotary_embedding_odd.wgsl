// An invocation turns one pair: an element of the first half of a row with its partner in the second.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let pair = workgroupIndex() * 64 + i32(localIndex);
  let row = pair / 6;
  let i = pair % 6;
  let length = uniforms.outShape.y;
  if (row < uniforms.outShape.x * length) {
    let at = row * 12 + i;
    let source = at + uniforms.firstHead * length * 12;
    let angle = (uniforms.start + row % length) * 12 + i;
    let a = x[source];
    let b = x[source + 6];
    result[at] = a * cos[angle] + b * signedSin[angle];
    result[at + 6] = b * cos[angle + 6] + a * signedSin[angle + 6];
  }
}
