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

uniform sampler2DArray means;
uniform int meansShift;
uniform int meansTexels;
ivec2 meansAt(int row) {
  return ivec2(row & ((1 << meansShift) - 1), (row >> meansShift) * meansTexels);
}
vec4 fetchMeans(ivec2 at, int texel, int layer) {
  return texelFetch(means, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readMeans(int row, int texel) {
  return fetchMeans(meansAt(row), texel, 0);
}
uniform int queryLength;
uniform int blockSize;
uniform int queryBlocks;
layout(location = 0) out vec4 result0;
// A fragment takes four rows. Rows that a block does not have get 0, and as they are its last, they rank behind the others.

int rowsInBlock(int queryBlock) {
  return min(blockSize, queryLength - queryBlock * blockSize);
}
void compute(int row, int texel) {
  int queryBlock = row % queryBlocks;
  int firstQuery = row / queryBlocks * queryLength + queryBlock * blockSize;
  int count = rowsInBlock(queryBlock);
  ivec2 mean = meansAt(row);
  vec4 distances = vec4(0.0);
  for (int c = 0; c < 4 && 4 * texel + c < count; c++) {
    ivec2 query = queryAt(firstQuery + 4 * texel + c);
    float sum = 0.0;
    for (int v = 0; v < 16; v++) {
      vec4 x = fetchQuery(query, v, 0) - fetchMeans(mean, v, 0);
      sum += dot(x, x);
    }
    distances[c] = sum;
  }
  result0 = distances;
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
