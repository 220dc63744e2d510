// A workgroup computes the output of one query row from the states of its chunks: invocation (vector, lane) combines one vec4
// of every 12-th chunk in registers, and the lanes are combined by way of workgroup memory.

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

var<workgroup> laneStates : array<State, 240>;

// All invocations call it together; those of the first lane get what all lanes have.
fn mergeLanes(own : State) -> State {
  let local = i32(min(localIndex, 239u));
  var state = own;
  laneStates[local] = state;
  // Barrier: the first lane reads what all lanes wrote.
  workgroupBarrier();
  for (var i = local + 20; i < 240 && local < 20; i += 20) {
    state = merge(state, laneStates[i]);
  }
  return state;
}
fn writeOutput(row : i32, vector : i32, x : vec4<f32>) { result[row * 20 + vector] = x; }

fn main(index : i32) {
  let local = i32(min(localIndex, 239u));
  let vector = local % 20;
  let lane = local / 20;
  let row = workgroupIndex();
  let exists = row < uniforms.statesShape.x;
  let chunks = uniforms.statesShape.y;
  var state = emptyState;
  for (var chunk = lane; chunk < chunks && exists; chunk += 12) {
    let first = (row * chunks + chunk) * 21;
    let sums = states[first + 20];
    state = merge(state, State(sums.x, sums.y, states[first + vector]));
  }
  state = mergeLanes(state);
  if (lane == 0 && exists) {
    // A row that saw nothing is zeros.
    writeOutput(row, vector, select(state.values / state.sum, vec4<f32>(0.0), state.sum == 0.0));
  }
}
