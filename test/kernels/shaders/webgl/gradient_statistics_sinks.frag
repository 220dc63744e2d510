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

uniform sampler2DArray attended;
uniform int attendedShift;
uniform int attendedTexels;
ivec2 attendedAt(int row) {
  return ivec2(row & ((1 << attendedShift) - 1), (row >> attendedShift) * attendedTexels);
}
vec4 fetchAttended(ivec2 at, int texel, int layer) {
  return texelFetch(attended, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readAttended(int row, int texel) {
  return fetchAttended(attendedAt(row), texel, 0);
}

uniform sampler2DArray dy;
uniform int dyShift;
uniform int dyTexels;
ivec2 dyAt(int row) {
  return ivec2(row & ((1 << dyShift) - 1), (row >> dyShift) * dyTexels);
}
vec4 fetchDy(ivec2 at, int texel, int layer) {
  return texelFetch(dy, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readDy(int row, int texel) {
  return fetchDy(dyAt(row), texel, 0);
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
uniform int endGroup;
layout(location = 0) out vec4 result0;
// A fragment writes the statistics of one query row, if its group belongs to the range.

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
vec4 logOfSums(vec4 sums) {
  uvec4 bits = floatBitsToUint(sums);
  bvec4 notFinite = equal(bits & uvec4(0x7f800000u), uvec4(0x7f800000u));
  return mix(log2(sums), uintBitsToFloat(bits | uvec4(0x7fc00000u)), notFinite);
}
void compute(int row, int texel) {
  int head = divide(row, queryLength);
  int position = row - head * queryLength;
  int block = divide(position, blockSize);
  int inBlock = position - block * blockSize;
  int query = divide(inBlock, groupsPerBlock);
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock - query * groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }
  float rowMax;
  float sum;
  rowMax = fetchEven(evenAt(group - firstGroup), 0, 0)[query];
    sum = fetchEven(evenAt(group - firstGroup), 0, 1)[query];
  ivec2 attendedRow = attendedAt(row);
  ivec2 dyRow = dyAt(row);
  float product = 0.0;
  for (int v = 0; v < 16; v++) {
    product += dot(fetchAttended(attendedRow, v, 0), fetchDy(dyRow, v, 0));
  }
  float sink = 1.4426950408889634 * readSinks(head % heads, 0).x;
  float top = max(rowMax, sink);
  float logSum = top + log2(sum * exp2(rowMax - top) + exp2(sink - top));
  result0 = vec4(sum == 0.0 ? 0.0 : logSum, product, 0.0, 0.0);
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
