// A workgroup summarises one block: invocation (vector, lane) adds up one vec4 column over every 8-th row, and the lanes
// are added up in workgroup memory.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn writeSummary(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }


var<workgroup> laneSums : array<vec4<f32>, 128>;

fn sumLanes(x : vec4<f32>) -> vec4<f32> {
  laneSums[i32(localIndex)] = x;
  // Barrier: a sum reads what all lanes of its column wrote.
  workgroupBarrier();
  var sum = vec4<f32>(0.0);
  for (var lane = 0; lane < 8; lane++) {
    sum += laneSums[lane * 16 + i32(localIndex) % 16];
  }
  // Barrier: the next sums overwrite these.
  workgroupBarrier();
  return sum;
}

fn main(index : i32) {
  let vector = i32(localIndex) % 16;
  let lane = i32(localIndex) / 16;
  let blocks = uniforms.outShape.z;
  let block = workgroupIndex() % blocks;
  let head = workgroupIndex() / blocks;
  let exists = head < uniforms.outShape.y;
  let first = block * uniforms.blockSize;
  // Padding stands last in its segment, so the keys that are none are the first of the order, too.
  let end = select(first, min(first + uniforms.blockSize, uniforms.keyShape.z), exists);
  let count = f32(max(1, end - first));
  var mean = vec4<f32>(0.0);
  for (var i = first + lane; i < end; i += 8) {
    mean += readKey(keyRow(head, uniforms.heads, keyIndices[head * uniforms.keyIndicesShape.z + i]), vector);
  }
  mean = sumLanes(mean) / count;
  if (lane == 0 && exists) {
    writeSummary(workgroupIndex(), vector, mean);
  }
  var variance = vec4<f32>(0.0);
  for (var i = first + lane; i < end; i += 8) {
    let x = readKey(keyRow(head, uniforms.heads, keyIndices[head * uniforms.keyIndicesShape.z + i]), vector) - mean;
    variance += x * x;
  }
  variance = sumLanes(variance);
  if (lane == 0 && exists) {
    writeSummary(uniforms.outShape.y * blocks + workgroupIndex(), vector, variance / count);
  }
}
