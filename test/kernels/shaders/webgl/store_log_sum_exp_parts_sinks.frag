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

uniform sampler2DArray sinks;
uniform int sinksShift;
uniform int sinksTexels;
ivec2 sinksAt(int row) {
  return ivec2(row & ((1 << sinksShift) - 1), (row >> sinksShift) * sinksTexels);
}
vec4 fetchSinks(ivec2 at, int texel, int layer) {
  return texelFetch(sinks, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSinks(int row, int texel) {
  return fetchSinks(sinksAt(row), texel, 0);
}
uniform int heads;
uniform int queryLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int keyBlocks;
uniform int window;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int parts;
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
int firstVisibleBlock(int queryBlock) {
  int firstKey = max(0, queryOffset + queryBlock * blockSize - window + 1);
  return min(firstKey / segmentSize * segmentSize / keyBlockSize, keyBlocks);
}
int slotCount(Group group) {
  return max(0, divide(queryOffset + min((group.block + 1) * blockSize, queryLength) + keyBlockSize - 1, keyBlockSize) - firstVisibleBlock(group.block));
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
  int row = (group - firstGroup) * parts;
  float rowMax = -1e29;
  float sum = 0.0;
  for (int part = 0; part < parts; part++) {
      rowMax = max(rowMax, readEven(row + part, 0)[query]);
    }
    for (int part = 0; part < parts; part++) {
      ivec2 at = evenAt(row + part);
      sum += exp2(fetchEven(at, 0, 0)[query] - rowMax) * fetchEven(at, 0, 1)[query];
    }
  float sink = 1.4426950408889634 * readSinks(head % heads, 0).x;
  float top = max(rowMax, sink);
  float logSum = top + log2(sum * exp2(rowMax - top) + exp2(sink - top));
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
