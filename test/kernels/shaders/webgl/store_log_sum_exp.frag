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

uniform sampler2DArray even;
uniform int evenShift;
uniform int evenTexels;
ivec2 evenAt(int row) {
  return ivec2(row & ((1 << evenShift) - 1), (row >> evenShift) * evenTexels);
}
vec4 fetchEven(ivec2 at, int texel, int layer) {
  return texelFetch(even, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readEven(int row, int texel) {
  return fetchEven(evenAt(row), texel, 0);
}

uniform sampler2DArray odd;
uniform int oddShift;
uniform int oddTexels;
ivec2 oddAt(int row) {
  return ivec2(row & ((1 << oddShift) - 1), (row >> oddShift) * oddTexels);
}
vec4 fetchOdd(ivec2 at, int texel, int layer) {
  return texelFetch(odd, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readOdd(int row, int texel) {
  return fetchOdd(oddAt(row), texel, 0);
}
uniform int queryLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int slotsPerRound;
uniform int endGroup;
layout(location = 0) out vec4 result0;
// A fragment writes the logarithm of one row, if its group belongs to the range.

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
  int position = index % queryLength;
  int head = index / queryLength;
  int block = divide(position, blockSize);
  int inBlock = position - block * blockSize;
  int query = divide(inBlock, groupsPerBlock);
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock - query * groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }
  int row = (group - firstGroup) * 1;
  float rowMax = -1e29;
  float sum = 0.0;
  int rounds = (slotCount(groupAt(group)) + slotsPerRound - 1) / slotsPerRound;
  if (max(rounds, 1) % 2 == 1) {
    for (int part = 0; part < 1; part++) {
      rowMax = max(rowMax, readEven(row + part, 0)[query]);
    }
    for (int part = 0; part < 1; part++) {
      ivec2 at = evenAt(row + part);
      sum += exp2(fetchEven(at, 0, 0)[query] - rowMax) * fetchEven(at, 0, 1)[query];
    }
  } else {
    for (int part = 0; part < 1; part++) {
      rowMax = max(rowMax, readOdd(row + part, 0)[query]);
    }
    for (int part = 0; part < 1; part++) {
      ivec2 at = oddAt(row + part);
      sum += exp2(fetchOdd(at, 0, 0)[query] - rowMax) * fetchOdd(at, 0, 1)[query];
    }
  }
  // Of a row that sees nothing −Infinity, by its bits.
  float logSum = sum == 0.0 ? uintBitsToFloat(0xff800000u) : rowMax + log2(sum);
  result0 = vec4(0.6931471805599453 * logSum, 0.0, 0.0, 0.0);
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
