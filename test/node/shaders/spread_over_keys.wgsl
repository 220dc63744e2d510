// An invocation takes one value of a key, or of a value, at its place in the permuted order, and writes it where the key
// stands.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}

fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / uniforms.heads], 0, uniforms.keyShape.z);
}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  let keyLength = uniforms.keyShape.z;
  let allHeads = uniforms.keyIndicesShape.x * uniforms.keyIndicesShape.y;
  if (i >= allHeads * keyLength * 128) {
    return;
  }
  let column = i % 128;
  let place = (i / 128) % keyLength;
  let head = i / (128 * keyLength);
  let position = keyIndices[head * keyLength + place];
  let row = head * keyLength + position;
  let at = select(allHeads * keyLength * 64 + row * 64 + column - 64, row * 64 + column, column < 64);
  var gradient = gradients[at];
  let end = keyEnd(head);
  if (position < end) {
    let keyBlock = place / uniforms.blockSize;
    let block = head * uniforms.keyBlocks + keyBlock;
    let count = f32(min(uniforms.blockSize, end - keyBlock * uniforms.blockSize));
    let sumsAt = block * 192;
    if (column < 64) {
      let x = key[keyRow(head, uniforms.heads, position) * 64 + column];
      let fromMean = x - summaries[block * 64 + column];
      gradient += (sums[sumsAt + column] + 2.0 * fromMean * sums[sumsAt + 64 + column]) / count;
    } else {
      gradient += sums[sumsAt + 128 + column - 64] / count;
    }
  }
  result[at] = gradient;
}
