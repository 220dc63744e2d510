// A workgroup takes one query block. First invocation (vector, lane) adds up one vec4 column over every 8-th row, and the
// lanes are added up in workgroup memory; then an invocation takes every 128-th row.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }

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
var<workgroup> meanQuery : array<vec4<f32>, 16>;

fn main(index : i32) {
  let vector = i32(localIndex) % 16;
  let lane = i32(localIndex) / 16;
  let length = uniforms.outShape.z;
  let head = workgroupIndex() / uniforms.queryBlocks;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let first = (workgroupIndex() % uniforms.queryBlocks) * uniforms.blockSize;
  let end = select(first, min(first + uniforms.blockSize, length), exists);
  var sum = vec4<f32>(0.0);
  for (var i = first + lane; i < end; i += 8) {
    sum += readQuery(head * length + i, vector);
  }
  sum = sumLanes(sum);
  if (lane == 0) {
    meanQuery[vector] = sum / f32(max(1, end - first));
  }
  // Barrier: all invocations read the mean.
  workgroupBarrier();
  for (var i = first + i32(localIndex); i < end; i += 128) {
    var distance = 0.0;
    for (var v = 0; v < 16; v++) {
      let x = readQuery(head * length + i, v) - meanQuery[v];
      distance += dot(x, x);
    }
    result[head * length + i] = distance;
  }
}
