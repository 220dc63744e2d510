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
uniform int queryLength;
uniform int queryOffset;
uniform int valueDim;
uniform int blockSize;
uniform int keyBlockSize;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int parts;
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
  return divide(queryOffset + min((group.block + 1) * blockSize, queryLength) + keyBlockSize - 1, keyBlockSize);
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
  int row = (group - firstGroup) * parts;
  float rowMax = -1e29;
    for (int part = 0; part < parts; part++) {
      rowMax = max(rowMax, readEvenStatistics(row + part, 0)[query]);
    }
    float sum = 0.0;
    float x = 0.0;
    for (int part = 0; part < parts; part++, row++) {
      ivec2 at = evenStatisticsAt(row);
      float weight = exp2(fetchEvenStatistics(at, 0, 0)[query] - rowMax);
      float partSum = fetchEvenStatistics(at, 0, 1)[query];
      sum += weight * partSum;
      x += weight * fetchEvenValues(evenValuesAt(row), vector / 2, query * 2 + vector % 2)[place % 4];
    }
    // A row that sees nothing gives zeros.
    result0 = vec4(sum == 0.0 ? 0.0 : x / sum, 0.0, 0.0, 0.0);
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
