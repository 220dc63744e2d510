// An invocation scores one key block: it adds up the sums of the phases, and takes the largest of their peaks.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  let blocks = uniforms.outShape.w;
  let queryBlocks = uniforms.outShape.z;
  if (i < uniforms.outShape.x * uniforms.outShape.y * queryBlocks * blocks) {
    let row = i / blocks;
    let rows = min(uniforms.blockSize, uniforms.queryLength - (row % queryBlocks) * uniforms.blockSize);
    var sum = 0.0;
    var peak = 0.0;
    for (var phase = 0; phase < 4; phase++) {
      let at = (row * 8 + 2 * phase) * blocks + i % blocks;
      sum += mass[at];
      peak = max(peak, mass[at + blocks]);
    }
    result[i] = sum / f32(rows) + uniforms.peakWeight * peak;
  }
}
