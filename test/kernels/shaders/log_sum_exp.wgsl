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
    // A row that saw nothing: the bits of -Infinity, which WGSL takes for no constant.
    var nothing = 0xff800000u;
    result[row] = select(0.6931471805599453f * (total + log2(sum)), bitcast<f32>(nothing), sum == 0.0);
  }
}
