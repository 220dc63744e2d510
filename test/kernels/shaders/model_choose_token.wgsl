// One workgroup; an invocation looks at every 256th logit, and what they find is brought together in workgroup memory.
//
// A draw is a race: a token of weight w arrives after a time of its own, exponentially distributed, over w, and the first one is
// taken, which is each token with a probability as its weight. Those below the nucleus (Holtzman et al., arXiv 1904.09751) do not start:
// its least weight is found by bisection over the bits of a float32, which are in the order of the floats.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> reduceBuffer : array<f32, 256>;

fn workgroupSum(x : f32) -> f32 {
  let local = i32(min(localIndex, 255u));
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 128; stride > 0; stride /= 2) {
    if (local < stride) {
      reduceBuffer[local] = reduceBuffer[local] + reduceBuffer[local + stride];
    }
    workgroupBarrier();
  }
  let total = reduceBuffer[0];
  // Barrier: the next reduction overwrites the buffer.
  workgroupBarrier();
  return total;
}

fn workgroupMax(x : f32) -> f32 {
  let local = i32(min(localIndex, 255u));
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = 128; stride > 0; stride /= 2) {
    if (local < stride) {
      reduceBuffer[local] = max(reduceBuffer[local], reduceBuffer[local + stride]);
    }
    workgroupBarrier();
  }
  let total = reduceBuffer[0];
  // Barrier: the next reduction overwrites the buffer.
  workgroupBarrier();
  return total;
}
var<workgroup> values : array<f32, 256>;
var<workgroup> ids : array<i32, 256>;
const highest = 3.4e38f;

fn largestLogit(count : i32) -> f32 {
  var largest = -highest;
  for (var i = i32(localIndex); i < count; i += 256) {
    // By its bits: comparisons pass over a NaN.
    let isFinite = (bitcast<u32>(logits[i]) & 0x7fffffffu) < 0x7f800000u;
    largest = max(largest, select(highest, logits[i], isFinite || logits[i] < 0.0));
  }
  return workgroupMax(largest);
}

// A time of arrival at weight 1, -log(1 - v) with v random in (0, 1): the same for the same seed and token. Of many tokens some v are
// tiny, where log is only as exact as 1 is: there by its series.
fn timeOf(seed : u32, token : u32) -> f32 {
  var x = seed ^ (token * 0x9e3779b9u);
  x = (x ^ (x >> 16u)) * 0x21f0aaadu;
  x = (x ^ (x >> 15u)) * 0x735a2d97u;
  x = x ^ (x >> 15u);
  let v = min((f32(x) + 0.5) * 0x1p-32, 1.0 - 0x1p-24);
  let series = v * (1.0 + v * (1.0 / 2.0 + v * (1.0 / 3.0 + v * (1.0 / 4.0 + v * (1.0 / 5.0 + v / 6.0)))));
  return select(-log(1.0 - v), series, v < 0.0625);
}

fn main(index : i32) {
  let local = i32(min(localIndex, 255u));
  let count = uniforms.logitsShape.y;
  let largest = largestLogit(count);
  // In units of log2; 0: the most likely token is wanted.
  let inverseTemperature = bitcast<f32>(choice[0]);
  let isGreedy = inverseTemperature == 0.0;
  var least = 0u;
  let topP = bitcast<f32>(choice[1]);
  if (!isGreedy && topP < 1.0) {
    var end = bitcast<u32>(1.0f) + 1u;
    var wanted = 0.0;
    // First the weight of all tokens, of which the wanted part is known then.
    for (var round = 0; round < 31; round++) {
      let middle = select(least + (end - least) / 2u, 0u, round == 0);
      var sum = 0.0;
      for (var i = local; i < count; i += 256) {
        let weight = exp2((logits[i] - largest) * inverseTemperature);
        sum += select(0.0, weight, bitcast<u32>(weight) >= middle);
      }
      sum = workgroupSum(sum);
      if (round == 0) {
        wanted = topP * sum;
      } else if (sum >= wanted) {
        least = middle;
      } else {
        end = middle;
      }
    }
  }
  var first = highest;
  var id = count;
  for (var i = local; i < count; i += 256) {
    var arrival = largest - logits[i];
    if (!isGreedy) {
      let weight = exp2(-arrival * inverseTemperature);
      arrival = select(highest, timeOf(bitcast<u32>(choice[2]), u32(i)) / weight, bitcast<u32>(weight) >= max(least, 1u));
    }
    if (arrival < first) {
      first = arrival;
      id = i;
    }
  }
  values[local] = first;
  ids[local] = id;
  for (var stride = 128; stride > 0; stride /= 2) {
    // Barrier: what to compare with is written by other invocations.
    workgroupBarrier();
    if (local < stride) {
      let other = local + stride;
      if (values[other] < values[local] || (values[other] == values[local] && ids[other] < ids[local])) {
        values[local] = values[other];
        ids[local] = ids[other];
      }
    }
  }
  if (local == 0 && workgroupIndex() == 0) {
    result[0] = select(-1, ids[0], abs(largest) < highest && ids[0] < count);
  }
}
