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

uniform sampler2DArray evenStatistics;
uniform int evenStatisticsShift;
uniform int evenStatisticsTexels;
ivec2 evenStatisticsAt(int row) {
  return ivec2(row & ((1 << evenStatisticsShift) - 1), (row >> evenStatisticsShift) * evenStatisticsTexels);
}
vec4 fetchEvenStatistics(ivec2 at, int texel, int layer) {
  return texelFetch(evenStatistics, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readEvenStatistics(int row, int texel) {
  return fetchEvenStatistics(evenStatisticsAt(row), texel, 0);
}

uniform sampler2DArray evenValues;
uniform int evenValuesShift;
uniform int evenValuesTexels;
ivec2 evenValuesAt(int row) {
  return ivec2(row & ((1 << evenValuesShift) - 1), (row >> evenValuesShift) * evenValuesTexels);
}
vec4 fetchEvenValues(ivec2 at, int texel, int layer) {
  return texelFetch(evenValues, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readEvenValues(int row, int texel) {
  return fetchEvenValues(evenValuesAt(row), texel, 0);
}

uniform sampler2DArray oddStatistics;
uniform int oddStatisticsShift;
uniform int oddStatisticsTexels;
ivec2 oddStatisticsAt(int row) {
  return ivec2(row & ((1 << oddStatisticsShift) - 1), (row >> oddStatisticsShift) * oddStatisticsTexels);
}
vec4 fetchOddStatistics(ivec2 at, int texel, int layer) {
  return texelFetch(oddStatistics, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readOddStatistics(int row, int texel) {
  return fetchOddStatistics(oddStatisticsAt(row), texel, 0);
}

uniform sampler2DArray oddValues;
uniform int oddValuesShift;
uniform int oddValuesTexels;
ivec2 oddValuesAt(int row) {
  return ivec2(row & ((1 << oddValuesShift) - 1), (row >> oddValuesShift) * oddValuesTexels);
}
vec4 fetchOddValues(ivec2 at, int texel, int layer) {
  return texelFetch(oddValues, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readOddValues(int row, int texel) {
  return fetchOddValues(oddValuesAt(row), texel, 0);
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
uniform int queryLength;
uniform int valueDim;
uniform int blockSize;
uniform int queryBlocks;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int slotsPerRound;
uniform int endGroup;
layout(location = 0) out vec4 result0;
// A fragment writes one value of the tensor, if its group belongs to the range.

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
void compute(int index) {
  int position = (index / valueDim) % queryLength;
  int head = index / (valueDim * queryLength);
  int place = index % valueDim;
  int vector = place / 4;
  int block = divide(position, blockSize);
  int inBlock = position - block * blockSize;
  int query = divide(inBlock, groupsPerBlock);
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock - query * groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }
  int row = group - firstGroup;
  int rounds = (slotCount(groupAt(group)) + slotsPerRound - 1) / slotsPerRound;
  if (max(rounds, 1) % 2 == 1) {
    float sum = fetchEvenStatistics(evenStatisticsAt(row), 0, 1)[query];
    float x = fetchEvenValues(evenValuesAt(row), vector / 2, query * 2 + vector % 2)[place % 4];
    // A row that sees nothing gives zeros.
    result0 = vec4(sum == 0.0 ? 0.0 : x / sum, 0.0, 0.0, 0.0);
  } else {
    float sum = fetchOddStatistics(oddStatisticsAt(row), 0, 1)[query];
    float x = fetchOddValues(oddValuesAt(row), vector / 2, query * 2 + vector % 2)[place % 4];
    // A row that sees nothing gives zeros.
    result0 = vec4(sum == 0.0 ? 0.0 : x / sum, 0.0, 0.0, 0.0);
  }
}

uniform int outWidth;
uniform int outSize;
void main() {
  int index = int(gl_FragCoord.y) * outWidth + int(gl_FragCoord.x);
  if (index >= outSize) {
    discard;
  }
  compute(index);
}
