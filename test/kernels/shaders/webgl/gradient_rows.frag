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

uniform sampler2DArray sums;
uniform int sumsShift;
uniform int sumsTexels;
ivec2 sumsAt(int row) {
  return ivec2(row & ((1 << sumsShift) - 1), (row >> sumsShift) * sumsTexels);
}
vec4 fetchSums(ivec2 at, int texel, int layer) {
  return texelFetch(sums, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSums(int row, int texel) {
  return fetchSums(sumsAt(row), texel, 0);
}
uniform int queryLength;
uniform int blockSize;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int endGroup;
uniform float factor;
layout(location = 0) out vec4 result0;
// A fragment copies one vector of a row, if its group belongs to the range.
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
  ivec2 at = sumsAt(group - firstGroup);
  result0 = factor * fetchSums(at, texel / 2, query * 2 + texel % 2);
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
