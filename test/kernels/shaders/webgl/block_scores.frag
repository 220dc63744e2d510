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

uniform sampler2DArray logits;
uniform int logitsShift;
uniform int logitsTexels;
ivec2 logitsAt(int row) {
  return ivec2(row & ((1 << logitsShift) - 1), (row >> logitsShift) * logitsTexels);
}
vec4 fetchLogits(ivec2 at, int texel, int layer) {
  return texelFetch(logits, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readLogits(int row, int texel) {
  return fetchLogits(logitsAt(row), texel, 0);
}

uniform sampler2DArray logSums;
uniform int logSumsShift;
uniform int logSumsTexels;
ivec2 logSumsAt(int row) {
  return ivec2(row & ((1 << logSumsShift) - 1), (row >> logSumsShift) * logSumsTexels);
}
vec4 fetchLogSums(ivec2 at, int texel, int layer) {
  return texelFetch(logSums, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readLogSums(int row, int texel) {
  return fetchLogSums(logSumsAt(row), texel, 0);
}
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int queryBlocks;
layout(location = 0) out vec4 result0;
// A fragment turns four logits into shares.

int candidateBlocks(int queryBlock) {
  return (queryOffset + queryBlock * blockSize) / segmentSize * segmentSize / keyBlockSize;
}
int competingBlocks(int head, int queryBlock) {
  return candidateBlocks(queryBlock);
}
void compute(int row, int texel) {
  int competing = competingBlocks(row / queryBlocks, row % queryBlocks);
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(competing));
  vec4 share = vec4(0.0);
  if (competes.x) {
    float logSum = readLogSums(row, 0).x;
    bool isNaN = (floatBitsToUint(logSum) & 0x7f800000u) == 0x7f800000u;
    share = isNaN ? vec4(logSum) : exp2(readLogits(row, texel) - logSum);
  }
  result0 = mix(vec4(0.0), share, competes);
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
