// A workgroup combines the chunks of 8 rows. Neighbours take neighbouring rows, whose statistics lie side by side; an
// invocation takes every 16th chunk of its row, and the first of a row combines what all have, in workgroup memory.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;
struct State {
  maximum : f32,
  sum : f32,
  values : vec4<f32>,
};
const emptyState = State(lowest, 0.0, vec4<f32>(0.0));

fn merge(a : State, b : State) -> State {
  let maximum = max(a.maximum, b.maximum);
  let x = weighted(a, maximum);
  let y = weighted(b, maximum);
  return State(maximum, x.sum + y.sum, x.values + y.values);
}

// A state brought to another maximum. One without weights need not have its values written: they may be what zero times makes a NaN.
fn weighted(x : State, maximum : f32) -> State {
  let rescale = exp2(x.maximum - maximum);
  return State(maximum, x.sum * rescale, select(x.values * rescale, vec4<f32>(0.0), x.sum == 0.0));
}

var<workgroup> laneStates : array<State, 128>;

// All invocations call it together; those of the first lane get what all lanes have.
fn mergeLanes(own : State) -> State {
  let local = i32(min(localIndex, 127u));
  var state = own;
  laneStates[local] = state;
  // Barrier: the first lane reads what all lanes wrote.
  workgroupBarrier();
  for (var i = local + 8; i < 128 && local < 8; i += 8) {
    state = merge(state, laneStates[i]);
  }
  return state;
}
fn logOfSum(sum : f32) -> f32 {
  let bits = bitcast<u32>(sum);
  return select(log2(sum), bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let row = workgroupIndex() * 8 + local % 8;
  let proxyRows = uniforms.outShape.y;
  let exists = row < uniforms.outShape.x * proxyRows;
  let chunks = uniforms.statisticsShape.y;
  let first = (row / proxyRows) * chunks * proxyRows + row % proxyRows;
  var state = emptyState;
  for (var chunk = local / 8; chunk < chunks && exists; chunk += 16) {
    let at = 2 * (first + chunk * proxyRows);
    state = merge(state, State(statistics[at], statistics[at + 1], vec4<f32>(0.0)));
  }
  state = mergeLanes(state);
  if (local < 8 && exists) {
    result[row] = state.maximum + logOfSum(state.sum);
  }
}
