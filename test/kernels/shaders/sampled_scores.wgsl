// An invocation scores one key block: it adds up the sums of the phases, and takes the largest of their peaks.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    let blocks = uniforms.keyBlocks;
    let row = index / blocks;
    let rows = min(uniforms.blockSize, uniforms.queryLength - (row % uniforms.queryBlocks) * uniforms.blockSize);
    var sum = 0.0;
    var peak = 0.0;
    for (var phase = 0; phase < 4; phase++) {
      let at = (row * 8 + 2 * phase) * blocks + index % blocks;
      sum += mass[at];
      peak = max(peak, mass[at + blocks]);
    }
    result[index] = sum / f32(rows) + uniforms.peakWeight * peak;
  }
}
