// A workgroup takes one query block; an invocation owns every 128th row. The place of a row is the number of rows that come
// before it, as in the sort of keys: few enough are compared to read them from global memory.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let length = uniforms.distancesShape.z;
  let queryBlocks = uniforms.outShape.z;
  let probeRows = uniforms.outShape.w;
  let head = workgroupIndex() / queryBlocks;
  if (head >= uniforms.outShape.x * uniforms.outShape.y) {
    return;
  }
  let first = (workgroupIndex() % queryBlocks) * uniforms.blockSize;
  let end = min(first + uniforms.blockSize, length);
  for (var own = first + i32(localIndex); own < end; own += 128) {
    // By their bits: a total order, also when there are NaNs, so that every place is filled.
    let distance = bitcast<u32>(distances[head * length + own]);
    var place = 0;
    for (var i = first; i < end; i++) {
      let other = bitcast<u32>(distances[head * length + i]);
      place += select(0, 1, other > distance || (other == distance && i < own));
    }
    if (place < probeRows) {
      result[workgroupIndex() * probeRows + place] = own;
    }
    if (place == 0) {
      for (var i = end - first; i < probeRows; i++) {
        result[workgroupIndex() * probeRows + i] = own;
      }
    }
  }
}
