// A workgroup takes one phase of 2 neighbouring blocks of queries, a subgroup the rows of one of them, one an invocation. It walks
// over the keys, 16 a step, read from global memory. Products run on matrix units, float16 in, float32 sums. Who holds an
// element of a product is not known, so scores pass through workgroup memory, by columns, in a part for each subgroup and twice, so
// that one barrier a step is enough; an invocation reads the row that it owns.
//
// 1. Each row's normaliser, by an online softmax: one tile of each 256 slots, of which a row meets its phase; then the block of
//    key 0 and the own segments, of which it meets every key.
// 2. Each row's share of each block, from its phase of every tile that competes; sum and maximum over the rows by subgroup
//    operations, 4 blocks at a time, which takes 3 shuffles a block where one block at a time takes 10. Every 32 blocks the invocations write
//    one each.
const threads = 64;

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;

// Key blocks before the segment in which a query row stands.
fn blocksBefore(row : i32) -> i32 {
  let position = row;
  return position / uniforms.segmentSize * (uniforms.segmentSize / uniforms.keyBlockSize);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return blocksBefore(queryBlock * uniforms.blockSize);
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let lastRow = min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1;
  return min(blocksBefore(lastRow) + uniforms.segmentSize / uniforms.keyBlockSize, uniforms.keyBlocks);
}
fn keyEnd(head : i32) -> i32 {
  return uniforms.keyLength;
}
fn logOfSum(sum : f32) -> f32 {
  let bits = bitcast<u32>(sum);
  return select(log2(sum), bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}
fn atMost(x : f32, limit : f32) -> f32 {
  return select(x, limit, x > limit && x < 3.4e38f);
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
var<workgroup> queryRows : array<f16, 2304>;
var<workgroup> scoreColumns : array<f32, 2304>;
var<workgroup> sinkBlock : i32;
// Of each block of queries: slots [0, x) compete, slots [y, z) are of its own segments.
var<workgroup> spans : array<vec3<i32>, 2>;

fn main(index : i32) {
  let local = i32(min(localIndex, 63u));
  let subgroup = local / 32;
  let lane = local % 32;
  let allHeads = uniforms.batch * uniforms.heads;
  let keyLength = uniforms.keyLength;
  let phase = workgroupIndex() % 4;
  let head = (workgroupIndex() / 4) % allHeads;
  // Last rows first: under a causal mask they see most keys, and a long workgroup should not start last.
  let groups = (uniforms.queryBlocks + 1) / 2;
  let firstBlock = (groups - 1 - workgroupIndex() / (4 * allHeads)) * 2;
  let queryBlock = firstBlock + subgroup;
  let exists = queryBlock >= 0 && queryBlock < uniforms.queryBlocks;
  let end = keyEnd(head);
  let firstRow = queryBlock * uniforms.blockSize;
  let rows = select(0, min(uniforms.blockSize, uniforms.queryShape.z - firstRow), exists);
  // The row of the block that this invocation owns: the lane-th of its phase.
  let place = 4 * lane + ((phase - lane) & 3);
  let owns = lane < 32 && place < rows;
  let lastVisible = min(end - 1, firstRow + place);
  let firstOfSubgroup = u32(subgroup * 576);
  var firstScore = firstOfSubgroup;
  let order = head * keyLength;
  let firstKey = u32(head * uniforms.keysShape.y) * 64u;

  if (lane == 0) {
    let scored = scoredBlocks(queryBlock) * 64;
    let seen = min(visibleBlocks(queryBlock) * 64, keyLength);
    spans[subgroup] = select(vec3<i32>(0), vec3<i32>(min(scored, end), scored, seen), exists && scored > 0);
  }
  // Original key 0 stays in the first segment: the one invocation that meets it says in which block.
  let firstSegment = min(uniforms.segmentSize, uniforms.keyLength);
  for (var i = local; i < firstSegment && firstBlock >= 0; i += threads) {
    if (keyIndices[head * uniforms.keyLength + i] == 0) {
      sinkBlock = i / uniforms.keyBlockSize;
    }
  }
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform loads.
  let span0 = workgroupUniformLoad(&spans[0]);
    let span1 = workgroupUniformLoad(&spans[1]);
  let sink = workgroupUniformLoad(&sinkBlock);
  // A block of queries without earlier segments takes no part.
  let mostCompeting = max(span0.x, span1.x);
  let endOwn = max(span0.z, span1.z);
  let firstOwn = min(select(endOwn, span0.y, span0.x > 0), select(endOwn, span1.y, span1.x > 0));
  let span = spans[subgroup];
  let competing = span.x;

  // Queries, by way of workgroup memory, into registers.
  var query0_0 : subgroup_matrix_left<f16, 16, 16>;
    var query0_1 : subgroup_matrix_left<f16, 16, 16>;
    var query0_2 : subgroup_matrix_left<f16, 16, 16>;
    var query0_3 : subgroup_matrix_left<f16, 16, 16>;
    var query1_0 : subgroup_matrix_left<f16, 16, 16>;
    var query1_1 : subgroup_matrix_left<f16, 16, 16>;
    var query1_2 : subgroup_matrix_left<f16, 16, 16>;
    var query1_3 : subgroup_matrix_left<f16, 16, 16>;
  for (var b = 0; b < 2; b++) {
    for (var i = local; i < 512; i += threads) {
      let number = i / 16;
      let stagedPlace = 4 * number + ((phase - number) & 3);
      let stagedRow = (firstBlock + b) * uniforms.blockSize + stagedPlace;
      var x = vec4<f32>(0.0);
      if (firstBlock >= 0 && stagedPlace < uniforms.blockSize && stagedRow < uniforms.queryShape.z && i % 16 < 16) {
        x = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + stagedRow, i % 16);
      }
      let at = number * 72 + 4 * (i % 16);
      queryRows[at + 0] = f16(x[0]);
      queryRows[at + 1] = f16(x[1]);
      queryRows[at + 2] = f16(x[2]);
      queryRows[at + 3] = f16(x[3]);
    }
    // Barrier: a subgroup reads rows that others loaded.
    workgroupBarrier();
    if (subgroup == b) {
      query0_0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 0u, 72u);
    query0_1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 16u, 72u);
    query0_2 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 32u, 72u);
    query0_3 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 48u, 72u);
    query1_0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 1152u, 72u);
    query1_1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 1168u, 72u);
    query1_2 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 1184u, 72u);
    query1_3 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&queryRows, 1200u, 72u);
    }
    // Barrier: other rows replace these.
    workgroupBarrier();
  }
  var next0_0 : subgroup_matrix_right<f16, 16, 16>;
    var next1_0 : subgroup_matrix_right<f16, 16, 16>;
    var next2_0 : subgroup_matrix_right<f16, 16, 16>;
    var next3_0 : subgroup_matrix_right<f16, 16, 16>;

  // 1. Normalisers: the coarse sample, less the block of key 0.
  let firstOfPhase = (4 - phase) & 3;
  var rowMax = lowest;
  var rowSum = 0.0;
  let runs = (mostCompeting + 255) / 256;
  
  if (runs > 0) {
        let at = firstKey + u32((4 * 0 + ((-phase - 0) & 3)) * 4 + firstOfPhase) * 1024u;
        next0_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 0u, 16u);
    next1_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 256u, 16u);
    next2_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 512u, 16u);
    next3_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 768u, 16u);
      }
  for (var i = 0; i < runs; i++) {
    let keys0_0 = next0_0;
    let keys1_0 = next1_0;
    let keys2_0 = next2_0;
    let keys3_0 = next3_0;
    let following = min(i + 1, runs - 1);
    {
        let at = firstKey + u32((4 * following + ((-phase - following) & 3)) * 4 + firstOfPhase) * 1024u;
        next0_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 0u, 16u);
    next1_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 256u, 16u);
    next2_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 512u, 16u);
    next3_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 768u, 16u);
      }
    var scores0_0 = subgroup_matrix_result<f32, 16, 16>();
    var scores1_0 = subgroup_matrix_result<f32, 16, 16>();
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_0, keys0_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_0, keys0_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_1, keys1_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_1, keys1_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_2, keys2_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_2, keys2_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_3, keys3_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_3, keys3_0, scores1_0);
    subgroupMatrixStore<col_major>(&scoreColumns, firstScore + 0u, scores0_0, 36u);
    subgroupMatrixStore<col_major>(&scoreColumns, firstScore + 16u, scores1_0, 36u);
    // Barrier: an invocation reads scores that all of its subgroup stored. The next ones go to the other half.
    workgroupBarrier();
    let x0 = scoreColumns[firstScore + u32(0 + lane)];
    let x1 = scoreColumns[firstScore + u32(36 + lane)];
    let x2 = scoreColumns[firstScore + u32(72 + lane)];
    let x3 = scoreColumns[firstScore + u32(108 + lane)];
    let x4 = scoreColumns[firstScore + u32(144 + lane)];
    let x5 = scoreColumns[firstScore + u32(180 + lane)];
    let x6 = scoreColumns[firstScore + u32(216 + lane)];
    let x7 = scoreColumns[firstScore + u32(252 + lane)];
    let x8 = scoreColumns[firstScore + u32(288 + lane)];
    let x9 = scoreColumns[firstScore + u32(324 + lane)];
    let x10 = scoreColumns[firstScore + u32(360 + lane)];
    let x11 = scoreColumns[firstScore + u32(396 + lane)];
    let x12 = scoreColumns[firstScore + u32(432 + lane)];
    let x13 = scoreColumns[firstScore + u32(468 + lane)];
    let x14 = scoreColumns[firstScore + u32(504 + lane)];
    let x15 = scoreColumns[firstScore + u32(540 + lane)];
    firstScore = 2u * firstOfSubgroup + 1152u - firstScore;
    let first = 64 * (4 * i + ((-phase - i) & 3)) + firstOfPhase;
    
    let s0 = select(lowest, x0 + 4.0, first + 0 < competing && (first + 0) / 64 != sink);
    let s1 = select(lowest, x1 + 4.0, first + 4 < competing && (first + 4) / 64 != sink);
    let s2 = select(lowest, x2 + 4.0, first + 8 < competing && (first + 8) / 64 != sink);
    let s3 = select(lowest, x3 + 4.0, first + 12 < competing && (first + 12) / 64 != sink);
    let s4 = select(lowest, x4 + 4.0, first + 16 < competing && (first + 16) / 64 != sink);
    let s5 = select(lowest, x5 + 4.0, first + 20 < competing && (first + 20) / 64 != sink);
    let s6 = select(lowest, x6 + 4.0, first + 24 < competing && (first + 24) / 64 != sink);
    let s7 = select(lowest, x7 + 4.0, first + 28 < competing && (first + 28) / 64 != sink);
    let s8 = select(lowest, x8 + 4.0, first + 32 < competing && (first + 32) / 64 != sink);
    let s9 = select(lowest, x9 + 4.0, first + 36 < competing && (first + 36) / 64 != sink);
    let s10 = select(lowest, x10 + 4.0, first + 40 < competing && (first + 40) / 64 != sink);
    let s11 = select(lowest, x11 + 4.0, first + 44 < competing && (first + 44) / 64 != sink);
    let s12 = select(lowest, x12 + 4.0, first + 48 < competing && (first + 48) / 64 != sink);
    let s13 = select(lowest, x13 + 4.0, first + 52 < competing && (first + 52) / 64 != sink);
    let s14 = select(lowest, x14 + 4.0, first + 56 < competing && (first + 56) / 64 != sink);
    let s15 = select(lowest, x15 + 4.0, first + 60 < competing && (first + 60) / 64 != sink);
    let newMax = max(rowMax, max(max(max(max(max(max(max(max(max(max(max(max(max(max(max(s0, s1), s2), s3), s4), s5), s6), s7), s8), s9), s10), s11), s12), s13), s14), s15));
    rowSum *= exp2(rowMax - newMax);
    rowSum += select(exp2(s0 - newMax), 0.0, s0 == lowest);
    rowSum += select(exp2(s1 - newMax), 0.0, s1 == lowest);
    rowSum += select(exp2(s2 - newMax), 0.0, s2 == lowest);
    rowSum += select(exp2(s3 - newMax), 0.0, s3 == lowest);
    rowSum += select(exp2(s4 - newMax), 0.0, s4 == lowest);
    rowSum += select(exp2(s5 - newMax), 0.0, s5 == lowest);
    rowSum += select(exp2(s6 - newMax), 0.0, s6 == lowest);
    rowSum += select(exp2(s7 - newMax), 0.0, s7 == lowest);
    rowSum += select(exp2(s8 - newMax), 0.0, s8 == lowest);
    rowSum += select(exp2(s9 - newMax), 0.0, s9 == lowest);
    rowSum += select(exp2(s10 - newMax), 0.0, s10 == lowest);
    rowSum += select(exp2(s11 - newMax), 0.0, s11 == lowest);
    rowSum += select(exp2(s12 - newMax), 0.0, s12 == lowest);
    rowSum += select(exp2(s13 - newMax), 0.0, s13 == lowest);
    rowSum += select(exp2(s14 - newMax), 0.0, s14 == lowest);
    rowSum += select(exp2(s15 - newMax), 0.0, s15 == lowest);
    rowMax = newMax;
  }
  // The tiles of the block of key 0 and of the own segments, every residue of their slots.
  let firstSinkTile = sink * 64 / 64;
  let sinkTiles = select(0, 1, mostCompeting > 0);
  let firstOwnTile = firstOwn / 64;
  let ownTiles = select(0, (endOwn + 63) / 64 - firstOwnTile, mostCompeting > 0);
  let endSink = min(competing, (sink + 1) * 64);
  let exactFragments = 4 * (sinkTiles + ownTiles);
  
  if (exactFragments > 0) {
        let at = firstKey + u32(select(firstOwnTile + 0 / 4 - sinkTiles, firstSinkTile + 0 / 4, 0 / 4 < sinkTiles) * 4 + (0 & 3)) * 1024u;
        next0_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 0u, 16u);
    next1_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 256u, 16u);
    next2_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 512u, 16u);
    next3_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 768u, 16u);
      }
  for (var i = 0; i < exactFragments; i++) {
    let keys0_0 = next0_0;
    let keys1_0 = next1_0;
    let keys2_0 = next2_0;
    let keys3_0 = next3_0;
    let following = min(i + 1, exactFragments - 1);
    {
        let at = firstKey + u32(select(firstOwnTile + following / 4 - sinkTiles, firstSinkTile + following / 4, following / 4 < sinkTiles) * 4 + (following & 3)) * 1024u;
        next0_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 0u, 16u);
    next1_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 256u, 16u);
    next2_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 512u, 16u);
    next3_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 768u, 16u);
      }
    var scores0_0 = subgroup_matrix_result<f32, 16, 16>();
    var scores1_0 = subgroup_matrix_result<f32, 16, 16>();
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_0, keys0_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_0, keys0_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_1, keys1_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_1, keys1_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_2, keys2_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_2, keys2_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_3, keys3_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_3, keys3_0, scores1_0);
    subgroupMatrixStore<col_major>(&scoreColumns, firstScore + 0u, scores0_0, 36u);
    subgroupMatrixStore<col_major>(&scoreColumns, firstScore + 16u, scores1_0, 36u);
    // Barrier: an invocation reads scores that all of its subgroup stored. The next ones go to the other half.
    workgroupBarrier();
    let x0 = scoreColumns[firstScore + u32(0 + lane)];
    let x1 = scoreColumns[firstScore + u32(36 + lane)];
    let x2 = scoreColumns[firstScore + u32(72 + lane)];
    let x3 = scoreColumns[firstScore + u32(108 + lane)];
    let x4 = scoreColumns[firstScore + u32(144 + lane)];
    let x5 = scoreColumns[firstScore + u32(180 + lane)];
    let x6 = scoreColumns[firstScore + u32(216 + lane)];
    let x7 = scoreColumns[firstScore + u32(252 + lane)];
    let x8 = scoreColumns[firstScore + u32(288 + lane)];
    let x9 = scoreColumns[firstScore + u32(324 + lane)];
    let x10 = scoreColumns[firstScore + u32(360 + lane)];
    let x11 = scoreColumns[firstScore + u32(396 + lane)];
    let x12 = scoreColumns[firstScore + u32(432 + lane)];
    let x13 = scoreColumns[firstScore + u32(468 + lane)];
    let x14 = scoreColumns[firstScore + u32(504 + lane)];
    let x15 = scoreColumns[firstScore + u32(540 + lane)];
    firstScore = 2u * firstOfSubgroup + 1152u - firstScore;
    let isSink = i / 4 < sinkTiles;
    let first = 64 * select(firstOwnTile + i / 4 - sinkTiles, firstSinkTile + i / 4, isSink) + (i & 3);
    let slot = first + 4 * (lane % 16);
    let counts = slot >= select(span.y, sink * 64, isSink) && slot < select(span.z, endSink, isSink);
    let keyPosition = select(0x7fffffff, keyIndices[order + min(slot, keyLength - 1)], counts);
    
    let s0 = select(lowest, x0, subgroupShuffle(keyPosition, 0u) <= lastVisible);
    let s1 = select(lowest, x1, subgroupShuffle(keyPosition, 1u) <= lastVisible);
    let s2 = select(lowest, x2, subgroupShuffle(keyPosition, 2u) <= lastVisible);
    let s3 = select(lowest, x3, subgroupShuffle(keyPosition, 3u) <= lastVisible);
    let s4 = select(lowest, x4, subgroupShuffle(keyPosition, 4u) <= lastVisible);
    let s5 = select(lowest, x5, subgroupShuffle(keyPosition, 5u) <= lastVisible);
    let s6 = select(lowest, x6, subgroupShuffle(keyPosition, 6u) <= lastVisible);
    let s7 = select(lowest, x7, subgroupShuffle(keyPosition, 7u) <= lastVisible);
    let s8 = select(lowest, x8, subgroupShuffle(keyPosition, 8u) <= lastVisible);
    let s9 = select(lowest, x9, subgroupShuffle(keyPosition, 9u) <= lastVisible);
    let s10 = select(lowest, x10, subgroupShuffle(keyPosition, 10u) <= lastVisible);
    let s11 = select(lowest, x11, subgroupShuffle(keyPosition, 11u) <= lastVisible);
    let s12 = select(lowest, x12, subgroupShuffle(keyPosition, 12u) <= lastVisible);
    let s13 = select(lowest, x13, subgroupShuffle(keyPosition, 13u) <= lastVisible);
    let s14 = select(lowest, x14, subgroupShuffle(keyPosition, 14u) <= lastVisible);
    let s15 = select(lowest, x15, subgroupShuffle(keyPosition, 15u) <= lastVisible);
    let newMax = max(rowMax, max(max(max(max(max(max(max(max(max(max(max(max(max(max(max(s0, s1), s2), s3), s4), s5), s6), s7), s8), s9), s10), s11), s12), s13), s14), s15));
    rowSum *= exp2(rowMax - newMax);
    rowSum += select(exp2(s0 - newMax), 0.0, s0 == lowest);
    rowSum += select(exp2(s1 - newMax), 0.0, s1 == lowest);
    rowSum += select(exp2(s2 - newMax), 0.0, s2 == lowest);
    rowSum += select(exp2(s3 - newMax), 0.0, s3 == lowest);
    rowSum += select(exp2(s4 - newMax), 0.0, s4 == lowest);
    rowSum += select(exp2(s5 - newMax), 0.0, s5 == lowest);
    rowSum += select(exp2(s6 - newMax), 0.0, s6 == lowest);
    rowSum += select(exp2(s7 - newMax), 0.0, s7 == lowest);
    rowSum += select(exp2(s8 - newMax), 0.0, s8 == lowest);
    rowSum += select(exp2(s9 - newMax), 0.0, s9 == lowest);
    rowSum += select(exp2(s10 - newMax), 0.0, s10 == lowest);
    rowSum += select(exp2(s11 - newMax), 0.0, s11 == lowest);
    rowSum += select(exp2(s12 - newMax), 0.0, s12 == lowest);
    rowSum += select(exp2(s13 - newMax), 0.0, s13 == lowest);
    rowSum += select(exp2(s14 - newMax), 0.0, s14 == lowest);
    rowSum += select(exp2(s15 - newMax), 0.0, s15 == lowest);
    rowMax = newMax;
  }
  let logSum = rowMax + logOfSum(rowSum);

  // 2. Shares of the blocks.
  let results = ((head * uniforms.queryBlocks + queryBlock) * 4 + phase) * 2 * uniforms.keyBlocks;
  var ownSum = 0.0;
  var ownPeak = 0.0;
  var pending = vec4<f32>(0.0);
  let secondPair = (lane & 2) != 0;
  let secondOfPair = (lane & 1) != 0;
  var share = 0.0;
  var block = 0;
  let tiles = (mostCompeting + 63) / 64;
  
  if (tiles > 0) {
        let at = firstKey + u32(0 * 4 + firstOfPhase) * 1024u;
        next0_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 0u, 16u);
    next1_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 256u, 16u);
    next2_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 512u, 16u);
    next3_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 768u, 16u);
      }
  for (var i = 0; i < tiles; i++) {
    let keys0_0 = next0_0;
    let keys1_0 = next1_0;
    let keys2_0 = next2_0;
    let keys3_0 = next3_0;
    let following = min(i + 1, tiles - 1);
    {
        let at = firstKey + u32(following * 4 + firstOfPhase) * 1024u;
        next0_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 0u, 16u);
    next1_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 256u, 16u);
    next2_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 512u, 16u);
    next3_0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&keys, at + 768u, 16u);
      }
    var scores0_0 = subgroup_matrix_result<f32, 16, 16>();
    var scores1_0 = subgroup_matrix_result<f32, 16, 16>();
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_0, keys0_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_0, keys0_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_1, keys1_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_1, keys1_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_2, keys2_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_2, keys2_0, scores1_0);
    scores0_0 = subgroupMatrixMultiplyAccumulate(query0_3, keys3_0, scores0_0);
    scores1_0 = subgroupMatrixMultiplyAccumulate(query1_3, keys3_0, scores1_0);
    subgroupMatrixStore<col_major>(&scoreColumns, firstScore + 0u, scores0_0, 36u);
    subgroupMatrixStore<col_major>(&scoreColumns, firstScore + 16u, scores1_0, 36u);
    // Barrier: an invocation reads scores that all of its subgroup stored. The next ones go to the other half.
    workgroupBarrier();
    let x0 = scoreColumns[firstScore + u32(0 + lane)];
    let x1 = scoreColumns[firstScore + u32(36 + lane)];
    let x2 = scoreColumns[firstScore + u32(72 + lane)];
    let x3 = scoreColumns[firstScore + u32(108 + lane)];
    let x4 = scoreColumns[firstScore + u32(144 + lane)];
    let x5 = scoreColumns[firstScore + u32(180 + lane)];
    let x6 = scoreColumns[firstScore + u32(216 + lane)];
    let x7 = scoreColumns[firstScore + u32(252 + lane)];
    let x8 = scoreColumns[firstScore + u32(288 + lane)];
    let x9 = scoreColumns[firstScore + u32(324 + lane)];
    let x10 = scoreColumns[firstScore + u32(360 + lane)];
    let x11 = scoreColumns[firstScore + u32(396 + lane)];
    let x12 = scoreColumns[firstScore + u32(432 + lane)];
    let x13 = scoreColumns[firstScore + u32(468 + lane)];
    let x14 = scoreColumns[firstScore + u32(504 + lane)];
    let x15 = scoreColumns[firstScore + u32(540 + lane)];
    firstScore = 2u * firstOfSubgroup + 1152u - firstScore;
    let reach = competing - 64 * i - firstOfPhase;
    let isWhole = reach > 60;
    let w0 = select(0.0, exp2(x0 - logSum), isWhole || 0 < reach);
    let w1 = select(0.0, exp2(x1 - logSum), isWhole || 4 < reach);
    let w2 = select(0.0, exp2(x2 - logSum), isWhole || 8 < reach);
    let w3 = select(0.0, exp2(x3 - logSum), isWhole || 12 < reach);
    let w4 = select(0.0, exp2(x4 - logSum), isWhole || 16 < reach);
    let w5 = select(0.0, exp2(x5 - logSum), isWhole || 20 < reach);
    let w6 = select(0.0, exp2(x6 - logSum), isWhole || 24 < reach);
    let w7 = select(0.0, exp2(x7 - logSum), isWhole || 28 < reach);
    let w8 = select(0.0, exp2(x8 - logSum), isWhole || 32 < reach);
    let w9 = select(0.0, exp2(x9 - logSum), isWhole || 36 < reach);
    let w10 = select(0.0, exp2(x10 - logSum), isWhole || 40 < reach);
    let w11 = select(0.0, exp2(x11 - logSum), isWhole || 44 < reach);
    let w12 = select(0.0, exp2(x12 - logSum), isWhole || 48 < reach);
    let w13 = select(0.0, exp2(x13 - logSum), isWhole || 52 < reach);
    let w14 = select(0.0, exp2(x14 - logSum), isWhole || 56 < reach);
    let w15 = select(0.0, exp2(x15 - logSum), isWhole || 60 < reach);
    share += w0 + w1 + w2 + w3 + w4 + w5 + w6 + w7 + w8 + w9 + w10 + w11 + w12 + w13 + w14 + w15;
    {
      // Where a row's normaliser missed what it pays most to, a share can come out above 1. What is not finite stays so.
      let paid = select(0.0, atMost(4.0 * share, 1.0), owns);
      pending = vec4<f32>(pending.yzw, paid);
      if (block % 4 == 3) {
        let blockSumPair = select(pending.xy, pending.zw, secondPair) + subgroupShuffleXor(select(pending.zw, pending.xy, secondPair), 2u);
        var blockSum = select(blockSumPair.x, blockSumPair.y, secondOfPair) + subgroupShuffleXor(select(blockSumPair.y, blockSumPair.x, secondOfPair), 1u);
        blockSum = blockSum + subgroupShuffleXor(blockSum, 4u); blockSum = blockSum + subgroupShuffleXor(blockSum, 8u); blockSum = blockSum + subgroupShuffleXor(blockSum, 16u);
        let blockPeakPair = max(select(pending.xy, pending.zw, secondPair), subgroupShuffleXor(select(pending.zw, pending.xy, secondPair), 2u));
        var blockPeak = max(select(blockPeakPair.x, blockPeakPair.y, secondOfPair), subgroupShuffleXor(select(blockPeakPair.y, blockPeakPair.x, secondOfPair), 1u));
        blockPeak = max(blockPeak, subgroupShuffleXor(blockPeak, 4u)); blockPeak = max(blockPeak, subgroupShuffleXor(blockPeak, 8u)); blockPeak = max(blockPeak, subgroupShuffleXor(blockPeak, 16u));
        if (lane / 4 == block % 32 / 4) {
          ownSum = blockSum;
          ownPeak = blockPeak;
        }
      }
      block++;
      share = 0.0;
      let at = block - 32 + lane;
      if (block % 32 == 0 && exists && at < uniforms.keyBlocks) {
        result[results + at] = ownSum;
        result[results + uniforms.keyBlocks + at] = ownPeak;
      }
    }
  }
  // The last blocks that compete, and zeros for those that do not.
  if (block % 4 != 0) {
    for (var i = block % 4; i < 4; i++) {
      pending = vec4<f32>(pending.yzw, 0.0);
    }
    {
        let blockSumPair = select(pending.xy, pending.zw, secondPair) + subgroupShuffleXor(select(pending.zw, pending.xy, secondPair), 2u);
        var blockSum = select(blockSumPair.x, blockSumPair.y, secondOfPair) + subgroupShuffleXor(select(blockSumPair.y, blockSumPair.x, secondOfPair), 1u);
        blockSum = blockSum + subgroupShuffleXor(blockSum, 4u); blockSum = blockSum + subgroupShuffleXor(blockSum, 8u); blockSum = blockSum + subgroupShuffleXor(blockSum, 16u);
        let blockPeakPair = max(select(pending.xy, pending.zw, secondPair), subgroupShuffleXor(select(pending.zw, pending.xy, secondPair), 2u));
        var blockPeak = max(select(blockPeakPair.x, blockPeakPair.y, secondOfPair), subgroupShuffleXor(select(blockPeakPair.y, blockPeakPair.x, secondOfPair), 1u));
        blockPeak = max(blockPeak, subgroupShuffleXor(blockPeak, 4u)); blockPeak = max(blockPeak, subgroupShuffleXor(blockPeak, 8u)); blockPeak = max(blockPeak, subgroupShuffleXor(blockPeak, 16u));
        if (lane / 4 == block % 32 / 4) {
          ownSum = blockSum;
          ownPeak = blockPeak;
        }
      }
  }
  for (var i = block - block % 32 + lane; exists && i < uniforms.keyBlocks; i += 32) {
    result[results + i] = select(0.0, ownSum, i < block);
    result[results + uniforms.keyBlocks + i] = select(0.0, ownPeak, i < block);
  }
}
