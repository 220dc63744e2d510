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

uniform sampler2DArray statistics;
uniform int statisticsShift;
uniform int statisticsTexels;
ivec2 statisticsAt(int row) {
  return ivec2(row & ((1 << statisticsShift) - 1), (row >> statisticsShift) * statisticsTexels);
}
vec4 fetchStatistics(ivec2 at, int texel, int layer) {
  return texelFetch(statistics, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readStatistics(int row, int texel) {
  return fetchStatistics(statisticsAt(row), texel, 0);
}

layout(location = 0) out vec4 result0;
// A fragment combines the pieces of a group. A row that sees none of the keys gets a sum so small that what it sees of a block is all.
vec4 logOfSums(vec4 sums) {
  uvec4 bits = floatBitsToUint(sums);
  bvec4 notFinite = equal(bits & uvec4(0x7f800000u), uvec4(0x7f800000u));
  return mix(log2(sums), uintBitsToFloat(bits | uvec4(0x7fc00000u)), notFinite);
}
void compute(int row, int texel) {
  ivec2 at = statisticsAt(row);
  vec4 rowMax = vec4(-1e29);
  for (int piece = 0; piece < statisticsTexels; piece++) {
    rowMax = max(rowMax, fetchStatistics(at, piece, 0));
  }
  vec4 sum = vec4(0.0);
  for (int piece = 0; piece < statisticsTexels; piece++) {
    sum += fetchStatistics(at, piece, 1) * exp2(fetchStatistics(at, piece, 0) - rowMax);
  }
  result0 = mix(vec4(-1e29), rowMax + logOfSums(sum), notEqual(sum, vec4(0.0)));
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
