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
uniform int proxyRows;
uniform int groups;
uniform int chunks;
layout(location = 0) out vec4 result0;
// A fragment combines the chunks of four rows. Rows that do not exist get a sum so large that their weights are 0.
vec4 logOfSums(vec4 sums) {
  uvec4 bits = floatBitsToUint(sums);
  bvec4 notFinite = equal(bits & uvec4(0x7f800000u), uvec4(0x7f800000u));
  return mix(log2(sums), uintBitsToFloat(bits | uvec4(0x7fc00000u)), notFinite);
}
void compute(int row, int texel) {
  int first = (row / groups) * chunks * groups + row % groups;
  vec4 rowMax = vec4(-1e29);
  for (int chunk = 0; chunk < chunks; chunk++) {
    rowMax = max(rowMax, readStatistics(first + chunk * groups, 0));
  }
  vec4 sum = vec4(0.0);
  for (int chunk = 0; chunk < chunks; chunk++) {
    ivec2 at = statisticsAt(first + chunk * groups);
    sum += fetchStatistics(at, 0, 1) * exp2(fetchStatistics(at, 0, 0) - rowMax);
  }
  bvec4 exists = lessThan(ivec4(0, 1, 2, 3) * groups + row % groups, ivec4(proxyRows));
  result0 = mix(vec4(-(-1e30)), rowMax + logOfSums(sum), exists);
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
