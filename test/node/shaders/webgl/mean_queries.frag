#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;

// Quotient of two whole numbers that are not negative, below 2^24: integer division takes several times as long.
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
uniform int queryLength;
uniform int blockSize;
uniform int queryBlocks;
layout(location = 0) out vec4 result0;
// A fragment adds up one vector of a block's queries.

int rowsInBlock(int queryBlock) {
  return min(blockSize, queryLength - queryBlock * blockSize);
}
void compute(int row, int texel) {
  int queryBlock = row % queryBlocks;
  int firstQuery = row / queryBlocks * queryLength + queryBlock * blockSize;
  int count = rowsInBlock(queryBlock);
  vec4 sum = vec4(0.0);
  for (int i = 0; i < count; i++) {
    sum += readQuery(firstQuery + i, texel);
  }
  result0 = sum / float(count);
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
