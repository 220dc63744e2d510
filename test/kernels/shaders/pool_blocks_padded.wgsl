// A workgroup computes the mean of one block's rows: invocation (vector, lane) adds up one vec4 column over every
// 8-th row, and the lanes are added up in workgroup memory. A partial block is still divided by the block size.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, position : i32) -> i32 {
  let heads = uniforms.heads;
  let keyHeads = uniforms.keyValueHeads;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyLength + position;
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn writePooled(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }
fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / uniforms.heads], 0, uniforms.keyLength);
}
var<workgroup> laneSums : array<vec4<f32>, 128>;

fn main(index : i32) {
  let vector = i32(localIndex) % 16;
  let lane = i32(localIndex) / 16;
  let firstKeyBlock = uniforms.batch * uniforms.heads * uniforms.queryBlocks;
  let ofQuery = workgroupIndex() < firstKeyBlock;
  let place = workgroupIndex() - select(firstKeyBlock, 0, ofQuery);
  let blocks = select(uniforms.keyBlocks, uniforms.queryBlocks, ofQuery);
  let block = place % blocks;
  let head = place / blocks;
  let exists = workgroupIndex() < uniforms.outShape.x;
  // Padding stands last in its segment, so the keys that are none are the first of the order, too.
  let length = select(keyEnd(head), uniforms.queryLength, ofQuery);
  let size = select(uniforms.keyBlockSize, uniforms.blockSize, ofQuery);
  let end = select(0, min((block + 1) * size, length), exists);
  var sum = vec4<f32>(0.0);
  for (var i = block * size + lane; i < end; i += 8) {
    if (ofQuery) {
      sum += readQuery(head * uniforms.queryLength + i, vector);
    } else {
      sum += readKey(keyRow(head, keyIndices[head * uniforms.keyLength + i]), vector);
    }
  }
  laneSums[i32(localIndex)] = sum;
  // Barrier: a mean takes what all lanes of its column added up.
  workgroupBarrier();
  if (lane == 0 && exists) {
    for (var i = 1; i < 8; i++) {
      sum += laneSums[i * 16 + vector];
    }
    writePooled(workgroupIndex(), vector, sum / f32(size));
  }
}
