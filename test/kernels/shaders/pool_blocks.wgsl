// A workgroup computes the mean of one block's rows: invocation (vector, lane) adds up one vec4 column over every
// 8-th row, and the lanes are added up in workgroup memory. A partial block is still divided by the block size.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn writePooled(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }

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
  let heads = uniforms.queryShape.y;
  let firstKeyBlock = uniforms.queryShape.x * heads * uniforms.queryBlocks;
  let ofQuery = workgroupIndex() < firstKeyBlock;
  let place = workgroupIndex() - select(firstKeyBlock, 0, ofQuery);
  let blocks = select(uniforms.keyBlocks, uniforms.queryBlocks, ofQuery);
  let block = place % blocks;
  let head = place / blocks;
  let exists = workgroupIndex() < uniforms.outShape.x;
  let length = select(uniforms.keyShape.z, uniforms.queryShape.z, ofQuery);
  let size = select(uniforms.keyBlockSize, uniforms.blockSize, ofQuery);
  let end = select(0, min((block + 1) * size, length), exists);
  var sum = vec4<f32>(0.0);
  for (var i = block * size + lane; i < end; i += 8) {
    if (ofQuery) {
      sum += readQuery(head * uniforms.queryShape.z + i, vector);
    } else {
      sum += readKey(keyRow(head, heads, keyIndices[head * uniforms.keyShape.z + i]), vector);
    }
  }
  sum = sumLanes(sum);
  if (lane == 0 && exists) {
    writePooled(workgroupIndex(), vector, sum / f32(size));
  }
}
