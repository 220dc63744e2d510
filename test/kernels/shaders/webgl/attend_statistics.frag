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

uniform sampler2DArray scores;
uniform int scoresShift;
uniform int scoresTexels;
ivec2 scoresAt(int row) {
  return ivec2(row & ((1 << scoresShift) - 1), (row >> scoresShift) * scoresTexels);
}
vec4 fetchScores(ivec2 at, int texel, int layer) {
  return texelFetch(scores, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readScores(int row, int texel) {
  return fetchScores(scoresAt(row), texel, 0);
}

uniform sampler2DArray before;
uniform int beforeShift;
uniform int beforeTexels;
ivec2 beforeAt(int row) {
  return ivec2(row & ((1 << beforeShift) - 1), (row >> beforeShift) * beforeTexels);
}
vec4 fetchBefore(ivec2 at, int texel, int layer) {
  return texelFetch(before, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readBefore(int row, int texel) {
  return fetchBefore(beforeAt(row), texel, 0);
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
uniform int blockSize;
uniform int queryBlocks;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int tilesPerBlock;
uniform int slotsPerRound;
uniform int firstSlot;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
// A fragment walks over the scores of a group's four rows, a component each: an online softmax, tile by tile.

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
void compute(int row, int texel) {
  int groupRow = row;
  int tiles = slotsOfRound(groupAt(firstGroup + groupRow)) * tilesPerBlock;
  if (tiles == 0) {
    discard;
  }
  ivec2 old = beforeAt(row);
  vec4 rowMax = fetchBefore(old, 0, 0);
  vec4 rowSum = fetchBefore(old, 0, 1);
  ivec2 at = scoresAt(groupRow);
  for (int tile = 0; tile < tiles; tile++) {
    vec4 s0 = fetchScores(at, tile, 0);
    vec4 s1 = fetchScores(at, tile, 1);
    vec4 s2 = fetchScores(at, tile, 2);
    vec4 s3 = fetchScores(at, tile, 3);
    vec4 s4 = fetchScores(at, tile, 4);
    vec4 s5 = fetchScores(at, tile, 5);
    vec4 s6 = fetchScores(at, tile, 6);
    vec4 s7 = fetchScores(at, tile, 7);
    vec4 newMax = rowMax;
    newMax = max(newMax, s0);
    newMax = max(newMax, s1);
    newMax = max(newMax, s2);
    newMax = max(newMax, s3);
    newMax = max(newMax, s4);
    newMax = max(newMax, s5);
    newMax = max(newMax, s6);
    newMax = max(newMax, s7);
    rowSum *= exp2(rowMax - newMax);
    rowSum += exp2(s0 - newMax);
    rowSum += exp2(s1 - newMax);
    rowSum += exp2(s2 - newMax);
    rowSum += exp2(s3 - newMax);
    rowSum += exp2(s4 - newMax);
    rowSum += exp2(s5 - newMax);
    rowSum += exp2(s6 - newMax);
    rowSum += exp2(s7 - newMax);
    rowMax = newMax;
  }
  result0 = rowMax;
  result1 = rowSum;
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
