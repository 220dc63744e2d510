// An invocation puts the states of the chunks of one row together.
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;

fn main(row : i32) {
  if (row < uniforms.invocations) {
    let chunks = uniforms.statesShape.y;
    var total = lowest;
      for (var i = 0; i < chunks; i++) {
        total = max(total, states[(row * chunks + i) * 21 + 20].x);
      }
      var sum = 0.0;
      for (var i = 0; i < chunks; i++) {
        sum += states[(row * chunks + i) * 21 + 20].y * exp2(states[(row * chunks + i) * 21 + 20].x - total);
      }
    let sink = headForms[row / uniforms.queryLength].z;
    let top = max(total, sink);
    result[row] = 0.6931471805599453f * (top + log2(sum * exp2(total - top) + exp2(sink - top)));
  }
}
