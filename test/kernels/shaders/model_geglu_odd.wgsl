// An invocation computes one element, of one value. All gates stand before all ups.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  if (i < uniforms.count) {
    let gate = gateAndUp[i];
    result[i] = gate / (1.0 + exp(-gate * (1.5957691216057308 + 0.07135481627260025 * gate * gate))) * gateAndUp[uniforms.count + i];
  }
}
