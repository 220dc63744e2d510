// A workgroup takes one head and walks over the rest, then the page, 1024 keys a round, with an online softmax. First an
// invocation computes the scores of 4 keys, in registers; their weights go to workgroup memory. Then it adds up the values
// of one vector of columns over every 16th key, in a register; these sums are added up once at the end.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> reduceBuffer : array<f32, 256>;

fn workgroupSum(x : f32) -> f32 {
  let local = i32(localIndex);
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
  let local = i32(localIndex);
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
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readRestKey(row : i32, vector : i32) -> vec4<f32> { return restKey[row * 16 + vector]; }
fn readPageKey(row : i32, vector : i32) -> vec4<f32> { return pageKey[row * 16 + vector]; }
fn readRestValue(row : i32, vector : i32) -> vec4<f32> { return restValue[row * 16 + vector]; }
fn readPageValue(row : i32, vector : i32) -> vec4<f32> { return pageValue[row * 16 + vector]; }
fn writeResult(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }
var<workgroup> weights : array<f32, 1024>;
var<workgroup> partialOutput : array<vec4<f32>, 256>;
const masked = -1e38;

fn readKey(keyHead : i32, key : i32, vector : i32) -> vec4<f32> {
  let rest = uniforms.restKeyShape.z;
  if (key < rest) {
    return readRestKey(keyHead * rest + key, vector);
  }
  return readPageKey(keyHead * uniforms.pageKeyShape.z + key - rest, vector);
}

fn readValue(keyHead : i32, key : i32, vector : i32) -> vec4<f32> {
  let rest = uniforms.restKeyShape.z;
  if (key < rest) {
    return readRestValue(keyHead * rest + key, vector);
  }
  return readPageValue(keyHead * uniforms.pageKeyShape.z + key - rest, vector);
}

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.y;
  // A workgroup too many computes the last head again, for the barriers' sake, and writes nothing.
  let head = min(workgroupIndex(), heads - 1);
  let keyHead = head / (heads / uniforms.restKeyShape.y);
  let rest = uniforms.restKeyShape.z;
  let keys = rest + uniforms.pageKeyShape.z;
  let vector = local % 16;
  let slice = local / 16;
  var rowMax = masked;
  var rowSum = 0.0;
  var output = vec4<f32>(0.0);
  for (var first = 0; first < keys; first += 1024) {
    var scores = vec4<f32>(0.0);
    for (var v = 0; v < 16; v++) {
      let q = readQuery(head, v);
      for (var k = 0; k < 4; k++) {
        // Past the last key it is read once more: its score is masked below.
        scores[k] += dot(q, readKey(keyHead, min(first + local + k * 256, keys - 1), v));
      }
    }
    var most = rowMax;
    for (var k = 0; k < 4; k++) {
      let key = first + local + k * 256;
      var score = scores[k] * uniforms.logitScale;
      if (key >= keys) {
        score = masked;
      } else if (key >= rest) {
        score += pageBias[key - rest];
      }
      scores[k] = score;
      most = max(most, score);
    }
    // Its barriers also keep the weights of the round before until everybody has read them.
    let newMax = workgroupMax(most);
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    let weight = exp2(scores - newMax);
    rowSum = rowSum * rescale + dot(weight, vec4<f32>(1.0));
    for (var k = 0; k < 4; k++) {
      weights[local + k * 256] = weight[k];
    }
    // Barrier: the values take weights that others wrote.
    workgroupBarrier();
    output *= rescale;
    if (slice < 16) {
      let count = min(1024, keys - first);
      for (var i = slice; i < count; i += 16) {
        output += weights[i] * readValue(keyHead, first + i, vector);
      }
    }
  }
  partialOutput[local] = output;
  // Its barriers also let everybody's output be read.
  let total = workgroupSum(rowSum);
  if (workgroupIndex() < heads && local < 16) {
    for (var s = 1; s < 16; s++) {
      output += partialOutput[s * 16 + local];
    }
    writeResult(head, local, output / total);
  }
}
