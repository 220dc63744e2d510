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

uniform sampler2DArray weights;
uniform int weightsShift;
uniform int weightsTexels;
ivec2 weightsAt(int row) {
  return ivec2(row & ((1 << weightsShift) - 1), (row >> weightsShift) * weightsTexels);
}
vec4 fetchWeights(ivec2 at, int texel, int layer) {
  return texelFetch(weights, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readWeights(int row, int texel) {
  return fetchWeights(weightsAt(row), texel, 0);
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
uniform int queryLength;
uniform int blockSize;
uniform int blocks;
uniform int rangeFirst;
uniform int rangeEnd;
layout(location = 0) out vec4 result0;
// A fragment adds up one vector over the rows of the range and its head.
void compute(int row, int texel) {
  int head = divide(row, blocks);
  int keyBlock = row - head * blocks;
  vec4 sum = vec4(0.0);
  int end = min(rangeEnd, (head + 1) * queryLength);
  for (int queryRow = max(rangeFirst, head * queryLength); queryRow < end; queryRow++) {
    vec4 x = readWeights(queryRow - rangeFirst, keyBlock);
    if (x.w == 0.0) {
      continue;
    }
    if (texel < 16) {
      sum += x.y * readQuery(queryRow, texel);
    } else if (texel < 32) {
      vec4 q = readQuery(queryRow, texel - 16);
      sum += x.z * q * q;
    } else {
      sum += x.x * readDy(queryRow, texel - 32);
    }
  }
  result0 = sum;
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
