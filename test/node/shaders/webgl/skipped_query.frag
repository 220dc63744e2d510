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

uniform sampler2DArray gradient;
uniform int gradientShift;
uniform int gradientTexels;
ivec2 gradientAt(int row) {
  return ivec2(row & ((1 << gradientShift) - 1), (row >> gradientShift) * gradientTexels);
}
vec4 fetchGradient(ivec2 at, int texel, int layer) {
  return texelFetch(gradient, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readGradient(int row, int texel) {
  return fetchGradient(gradientAt(row), texel, 0);
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

uniform sampler2DArray summaries;
uniform int summariesShift;
uniform int summariesTexels;
ivec2 summariesAt(int row) {
  return ivec2(row & ((1 << summariesShift) - 1), (row >> summariesShift) * summariesTexels);
}
vec4 fetchSummaries(ivec2 at, int texel, int layer) {
  return texelFetch(summaries, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSummaries(int row, int texel) {
  return fetchSummaries(summariesAt(row), texel, 0);
}
uniform int queryLength;
uniform int blockSize;
uniform int blocks;
uniform int rangeFirst;
uniform int rangeEnd;
uniform float scale;
layout(location = 0) out vec4 result0;
// A fragment adds up one vector over the blocks that its row skips.
void compute(int row, int texel) {
  int firstBlock = divide(row, queryLength) * blocks;
  ivec2 at = weightsAt(row - rangeFirst);
  vec4 q = scale * readQuery(row, texel);
  vec4 sum = vec4(0.0);
  for (int block = 0; block < blocks; block++) {
    vec4 x = fetchWeights(at, block, 0);
    if (x.w != 0.0) {
      ivec2 summary = summariesAt(firstBlock + block);
      sum += x.y * fetchSummaries(summary, texel, 0) + x.z * q * fetchSummaries(summary, texel, 1);
    }
  }
  result0 = readGradient(row, texel) + scale * sum;
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
