// A workgroup takes one query block; an invocation owns every 128th row, whose place is its rank.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> rankedTile : array<u32, 128>;

// The values pass through workgroup memory in tiles; past the last stand zeros, which come before nothing.
fn rank(first : i32, count : i32, own : i32) -> i32 {
  let local = i32(localIndex);
  var value = 0u;
  if (own < count) {
    value = bitcast<u32>(distances[first + own]);
  }
  var before = 0;
  for (var base = 0; base < count; base += 128) {
    var loaded = 0u;
    if (base + local < count) {
      loaded = bitcast<u32>(distances[first + base + local]);
    }
    rankedTile[local] = loaded;
    // Barrier: every invocation reads what all have loaded.
    workgroupBarrier();
    for (var i = 0; i < 128; i += 8) {
      let other0 = rankedTile[i + 0];
      let other1 = rankedTile[i + 1];
      let other2 = rankedTile[i + 2];
      let other3 = rankedTile[i + 3];
      let other4 = rankedTile[i + 4];
      let other5 = rankedTile[i + 5];
      let other6 = rankedTile[i + 6];
      let other7 = rankedTile[i + 7];
      before += select(0, 1, other0 > value || (other0 == value && base + i + 0 < own));
      before += select(0, 1, other1 > value || (other1 == value && base + i + 1 < own));
      before += select(0, 1, other2 > value || (other2 == value && base + i + 2 < own));
      before += select(0, 1, other3 > value || (other3 == value && base + i + 3 < own));
      before += select(0, 1, other4 > value || (other4 == value && base + i + 4 < own));
      before += select(0, 1, other5 > value || (other5 == value && base + i + 5 < own));
      before += select(0, 1, other6 > value || (other6 == value && base + i + 6 < own));
      before += select(0, 1, other7 > value || (other7 == value && base + i + 7 < own));
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }
  return before;
}

// Rows of the workgroup's block.
var<workgroup> rowCount : i32;

fn main(index : i32) {
  let length = uniforms.distancesShape.z;
  let queryBlocks = uniforms.outShape.z;
  let probeRows = uniforms.outShape.w;
  let head = workgroupIndex() / queryBlocks;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let first = (workgroupIndex() % queryBlocks) * uniforms.blockSize;
  if (localIndex == 0u) {
    rowCount = select(0, min(uniforms.blockSize, length - first), exists);
  }
  // The ranking holds barriers, so all invocations must agree on the count: hence the uniform load.
  let count = workgroupUniformLoad(&rowCount);
  for (var base = 0; base < count; base += 128) {
    let own = base + i32(localIndex);
    let place = rank(head * length + first, count, own);
    if (own < count && place < probeRows) {
      result[workgroupIndex() * probeRows + place] = first + own;
    }
    if (own < count && place == 0) {
      for (var i = count; i < probeRows; i++) {
        result[workgroupIndex() * probeRows + i] = first + own;
      }
    }
  }
}
