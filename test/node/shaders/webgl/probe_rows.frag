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

uniform sampler2DArray ranks;
uniform int ranksShift;
uniform int ranksTexels;
ivec2 ranksAt(int row) {
  return ivec2(row & ((1 << ranksShift) - 1), (row >> ranksShift) * ranksTexels);
}
vec4 fetchRanks(ivec2 at, int texel, int layer) {
  return texelFetch(ranks, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readRanks(int row, int texel) {
  return fetchRanks(ranksAt(row), texel, 0);
}
uniform int queryLength;
uniform int blockSize;
uniform int queryBlocks;
uniform int probeRows;
layout(location = 0) out vec4 result0;
// A fragment finds four probe rows, by looking for their ranks. What a row has beyond its columns repeats the first, too.

int rowsInBlock(int queryBlock) {
  return min(blockSize, queryLength - queryBlock * blockSize);
}
void compute(int row, int texel) {
  int count = rowsInBlock(row % queryBlocks);
  ivec4 wanted = ivec4(0, 1, 2, 3) + 4 * texel;
  wanted *= ivec4(lessThan(wanted, ivec4(min(count, probeRows))));
  ivec2 at = ranksAt(row);
  vec4 probes = vec4(0.0);
  for (int t = 0; 4 * t < count; t++) {
    ivec4 ranks = ivec4(fetchRanks(at, t, 0));
    for (int c = 0; c < 4 && 4 * t + c < count; c++) {
      probes = mix(probes, vec4(4 * t + c), equal(ivec4(ranks[c]), wanted));
    }
  }
  result0 = probes;
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
