#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;

// Quotient of two whole numbers that are not negative, below 2^24, or with a quotient below 2^16, as of a line of a texture: integer
// division takes several times as long.
int divide(int a, int b) {
  int q = int((float(a) + 0.5) / float(b));
  int rest = a - q * b;
  return q + int(rest >= b) - int(rest < 0);
}

uniform sampler2DArray query;
uniform int queryShift;
uniform int queryTexels;
ivec2 queryAt(int row) {
  return ivec2(row & ((1 << queryShift) - 1), (row >> queryShift) * queryTexels);
}
vec4 fetchQuery(ivec2 at, int texel, int layer) {
  return texelFetch(query, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readQuery(int row, int texel) {
  return fetchQuery(queryAt(row), texel, 0);
}

uniform sampler2DArray key;
uniform int keyShift;
uniform int keyTexels;
ivec2 keyAt(int row) {
  return ivec2(row & ((1 << keyShift) - 1), (row >> keyShift) * keyTexels);
}
vec4 fetchKey(ivec2 at, int texel, int layer) {
  return texelFetch(key, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKey(int row, int texel) {
  return fetchKey(keyAt(row), texel, 0);
}

uniform sampler2DArray keyIndices;
uniform int keyIndicesShift;
uniform int keyIndicesTexels;
ivec2 keyIndicesAt(int row) {
  return ivec2(row & ((1 << keyIndicesShift) - 1), (row >> keyIndicesShift) * keyIndicesTexels);
}
vec4 fetchKeyIndices(ivec2 at, int texel, int layer) {
  return texelFetch(keyIndices, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKeyIndices(int row, int texel) {
  return fetchKeyIndices(keyIndicesAt(row), texel, 0);
}

uniform sampler2DArray alibiSlopes;
uniform int alibiSlopesShift;
uniform int alibiSlopesTexels;
ivec2 alibiSlopesAt(int row) {
  return ivec2(row & ((1 << alibiSlopesShift) - 1), (row >> alibiSlopesShift) * alibiSlopesTexels);
}
vec4 fetchAlibiSlopes(ivec2 at, int texel, int layer) {
  return texelFetch(alibiSlopes, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readAlibiSlopes(int row, int texel) {
  return fetchAlibiSlopes(alibiSlopesAt(row), texel, 0);
}

uniform sampler2DArray mask;
uniform int maskShift;
uniform int maskTexels;
ivec2 maskAt(int row) {
  return ivec2(row & ((1 << maskShift) - 1), (row >> maskShift) * maskTexels);
}
vec4 fetchMask(ivec2 at, int texel, int layer) {
  return texelFetch(mask, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readMask(int row, int texel) {
  return fetchMask(maskAt(row), texel, 0);
}

uniform sampler2DArray blockLists;
uniform int blockListsShift;
uniform int blockListsTexels;
ivec2 blockListsAt(int row) {
  return ivec2(row & ((1 << blockListsShift) - 1), (row >> blockListsShift) * blockListsTexels);
}
vec4 fetchBlockLists(ivec2 at, int texel, int layer) {
  return texelFetch(blockLists, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readBlockLists(int row, int texel) {
  return fetchBlockLists(blockListsAt(row), texel, 0);
}
uniform int heads;
uniform int queryLength;
uniform int keyLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int queryBlocks;
uniform int keyBlocks;
uniform int window;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int tilesPerBlock;
uniform int slotsPerRound;
uniform int maskBatchStep;
uniform int maskHeadStep;
uniform int maskRowStep;
uniform int maskBlockStep;
uniform int maskBlockSize;
uniform int maskTiles;
uniform int maskLastRow;
uniform int maskLastKey;
uniform int firstSlot;
uniform float logitScale;
uniform float softCap;
uniform float inverseSoftCap;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
layout(location = 4) out vec4 result4;
layout(location = 5) out vec4 result5;
layout(location = 6) out vec4 result6;
layout(location = 7) out vec4 result7;
// A fragment computes the scores of a group with one tile of 8 keys, each key a layer.

struct Group {
  int head;
  int block;
  ivec4 queries;
};
Group groupAt(int group) {
  int blockOfHead = divide(group, groupsPerBlock);
  int block = divide(blockOfHead, walkHeads);
  int inBlock = group - blockOfHead * groupsPerBlock;
  ivec4 queries = ivec4(0, 1, 2, 3) * groupsPerBlock + block * blockSize + inBlock;
  return Group(firstHead + blockOfHead - block * walkHeads, block, queries);
}
int slotCount(Group group) {
  return int(readBlockLists(group.head * queryBlocks + group.block, 0).x);
}

int slotsOfRound(Group group) {
  return clamp(slotCount(group) - firstSlot, 0, slotsPerRound);
}

int blockOf(Group group, int slot) {
  int entry = 1 + firstSlot + slot;
  return int(readBlockLists(group.head * queryBlocks + group.block, entry / 4)[entry % 4]);
}
int firstKeyRow(int head) {
  return (head - firstHead) * keyLength;
}
ivec4 positionsIn(int block, int tile, int four) {
  return block * keyBlockSize + tile + (ivec4(0, 1, 2, 3) + 4 * four) * tilesPerBlock;
}

ivec4 originsOf(Group group, int block, int tile, int four, ivec4 positions) {
  return ivec4(readKeyIndices(group.head * keyBlocks + block, tile * 2 + four));
}

// By its series where the quotient would lose digits.
vec4 softTanh(vec4 x) {
  vec4 power = exp2(-2.8853900817779268 * abs(x));
  vec4 square = x * x;
  vec4 series = x * (1.0 + square * (-0.3333333333333333 + square * (0.13333333333333333 - 0.05396825396825397 * square)));
  return mix(sign(x) * (1.0 - power) / (1.0 + power), series, lessThan(abs(x), vec4(0.25)));
}
float slope;
vec4 formed(vec4 scores, ivec4 distances) {
  scores = softCap * softTanh(scores * inverseSoftCap);
  scores -= slope * vec4(abs(distances));
  return mix(scores, vec4(-1e30), greaterThanEqual(abs(distances), ivec4(window)));
}
vec4 visible(int key, ivec4 queries, vec4 scores) {
  if (key < 0) {
    return vec4(-1e30);
  }
  scores = formed(scores, queries + queryOffset - key);
  return scores;
}
float maskOfKey(int head, int query, int key) {
  int row = (head / heads) * maskBatchStep + (head % heads) * maskHeadStep + clamp(query, 0, maskLastRow) * maskRowStep;
  if (maskBlockStep == 0) {
    return readMask(row, 0).x;
  }
  int known = clamp(key, 0, maskLastKey);
  int block = divide(known, maskBlockSize);
  int inBlock = known - block * maskBlockSize;
  int place = divide(inBlock, maskTiles);
  int column = (inBlock - place * maskTiles) * 8 + place;
  return readMask(row + block, column / 4)[column % 4];
}
vec4 maskOf(int head, ivec4 queries, ivec4 keys) {
  vec4 four;
  for (int i = 0; i < 4; i++) {
    four[i] = maskOfKey(head, queries[i], keys[i]);
  }
  return four;
}
vec4 masked(vec4 scores, vec4 mask) {
  bvec4 hides = equal(floatBitsToUint(mask), uvec4(0xff800000u));
  return mix(scores + 1.4426950408889634 * max(mask, vec4(-1e28)), vec4(-1e30), hides);
}
void compute(int row, int tile) {
  Group group = groupAt(firstGroup + row);
  int slot = divide(tile, tilesPerBlock);
  // Nobody reads the tiles that a group does not have.
  if (slot >= slotsOfRound(group)) {
    discard;
  }
  int head = group.head;
  ivec4 queries = group.queries;
  slope = 1.4426950408889634 * readAlibiSlopes(group.head % heads, 0).x;
  int firstKey = firstKeyRow(head);
  int block = blockOf(group, slot);
  int tileOfBlock = tile - slot * tilesPerBlock;
  ivec4 positions0 = positionsIn(block, tileOfBlock, 0);
  ivec4 keys0 = originsOf(group, block, tileOfBlock, 0, positions0);
  ivec4 positions1 = positionsIn(block, tileOfBlock, 1);
  ivec4 keys1 = originsOf(group, block, tileOfBlock, 1, positions1);

  ivec2 query0 = queryAt(head * queryLength + min(queries[0], queryLength - 1));
  ivec2 query1 = queryAt(head * queryLength + min(queries[1], queryLength - 1));
  ivec2 query2 = queryAt(head * queryLength + min(queries[2], queryLength - 1));
  ivec2 query3 = queryAt(head * queryLength + min(queries[3], queryLength - 1));
  ivec2 key0 = keyAt(firstKey + min(positions0[0], keyLength - 1));
  ivec2 key1 = keyAt(firstKey + min(positions0[1], keyLength - 1));
  ivec2 key2 = keyAt(firstKey + min(positions0[2], keyLength - 1));
  ivec2 key3 = keyAt(firstKey + min(positions0[3], keyLength - 1));
  ivec2 key4 = keyAt(firstKey + min(positions1[0], keyLength - 1));
  ivec2 key5 = keyAt(firstKey + min(positions1[1], keyLength - 1));
  ivec2 key6 = keyAt(firstKey + min(positions1[2], keyLength - 1));
  ivec2 key7 = keyAt(firstKey + min(positions1[3], keyLength - 1));
  vec4 score0 = vec4(0.0);
  vec4 score1 = vec4(0.0);
  vec4 score2 = vec4(0.0);
  vec4 score3 = vec4(0.0);
  vec4 score4 = vec4(0.0);
  vec4 score5 = vec4(0.0);
  vec4 score6 = vec4(0.0);
  vec4 score7 = vec4(0.0);
  for (int v = 0; v < 16; v++) {
    vec4 q0 = fetchQuery(query0, v, 0);
    vec4 q1 = fetchQuery(query1, v, 0);
    vec4 q2 = fetchQuery(query2, v, 0);
    vec4 q3 = fetchQuery(query3, v, 0);
    vec4 k;
    k = fetchKey(key0, v, 0);
    score0 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key1, v, 0);
    score1 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key2, v, 0);
    score2 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key3, v, 0);
    score3 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key4, v, 0);
    score4 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key5, v, 0);
    score5 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key6, v, 0);
    score6 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key7, v, 0);
    score7 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
  }
  result0 = masked(visible(keys0[0], queries, logitScale * score0), maskOf(head, queries, ivec4(keys0[0])));
  result1 = masked(visible(keys0[1], queries, logitScale * score1), maskOf(head, queries, ivec4(keys0[1])));
  result2 = masked(visible(keys0[2], queries, logitScale * score2), maskOf(head, queries, ivec4(keys0[2])));
  result3 = masked(visible(keys0[3], queries, logitScale * score3), maskOf(head, queries, ivec4(keys0[3])));
  result4 = masked(visible(keys1[0], queries, logitScale * score4), maskOf(head, queries, ivec4(keys1[0])));
  result5 = masked(visible(keys1[1], queries, logitScale * score5), maskOf(head, queries, ivec4(keys1[1])));
  result6 = masked(visible(keys1[2], queries, logitScale * score6), maskOf(head, queries, ivec4(keys1[2])));
  result7 = masked(visible(keys1[3], queries, logitScale * score7), maskOf(head, queries, ivec4(keys1[3])));
}

uniform int outShift;
uniform int outTexels;
uniform int firstRow;
uniform int endRow;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int band = divide(at.y, outTexels);
  int row = (band << outShift) + at.x;
  int texel = at.y - band * outTexels;
  // A band can hold rows that are not to be drawn, or that do not exist.
  if (row < firstRow || row >= endRow) {
    discard;
  }
  compute(row, texel);
}
