// A workgroup combines the chunks of 8 rows. Neighbours take neighbouring rows, whose statistics lie side by side; an
// invocation takes every 16th chunk of its row, and the first of a row combines what all have, in workgroup memory.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;
var<workgroup> parts : array<vec2<f32>, 128>;

// Maximum and sum of exp2(score − maximum) of both.
fn combine(a : vec2<f32>, b : vec2<f32>) -> vec2<f32> {
  let most = max(a.x, b.x);
  return vec2<f32>(most, a.y * exp2(a.x - most) + b.y * exp2(b.x - most));
}

fn main(index : i32) {
  let local = i32(localIndex);
  let row = workgroupIndex() * 8 + local % 8;
  let proxyRows = uniforms.outShape.y;
  let exists = row < uniforms.outShape.x * proxyRows;
  let chunks = uniforms.statisticsShape.y;
  let first = (row / proxyRows) * chunks * proxyRows + row % proxyRows;
  var sums = vec2<f32>(lowest, 0.0);
  for (var chunk = local / 8; chunk < chunks && exists; chunk += 16) {
    let at = 2 * (first + chunk * proxyRows);
    sums = combine(sums, vec2<f32>(statistics[at], statistics[at + 1]));
  }
  parts[local] = sums;
  // Barrier: the first invocation of a row reads what all of the row wrote.
  workgroupBarrier();
  if (local < 8 && exists) {
    for (var lane = 1; lane < 16; lane++) {
      sums = combine(sums, parts[lane * 8 + local]);
    }
    result[row] = sums.x + log2(sums.y);
  }
}
