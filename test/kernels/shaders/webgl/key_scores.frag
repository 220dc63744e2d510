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

uniform sampler2DArray scores;
uniform int scoresShift;
uniform int scoresTexels;
ivec2 scoresAt(int row) {
  return ivec2(row & ((1 << scoresShift) - 1), (row >> scoresShift) * scoresTexels);
}
vec4 fetchScores(ivec2 at, int texel, int layer) {
  return texelFetch(scores, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readScores(int row, int texel) {
  return fetchScores(scoresAt(row), texel, 0);
}

uniform sampler2DArray rowLogSums;
uniform int rowLogSumsShift;
uniform int rowLogSumsTexels;
ivec2 rowLogSumsAt(int row) {
  return ivec2(row & ((1 << rowLogSumsShift) - 1), (row >> rowLogSumsShift) * rowLogSumsTexels);
}
vec4 fetchRowLogSums(ivec2 at, int texel, int layer) {
  return texelFetch(rowLogSums, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readRowLogSums(int row, int texel) {
  return fetchRowLogSums(rowLogSumsAt(row), texel, 0);
}
uniform int segmentSize;
uniform int proxyRows;
uniform int groups;
uniform int chunks;
uniform int firstHead;
uniform int segments;
layout(location = 0) out vec4 result0;
// A fragment adds up the weights of four keys over all proxy rows.
void compute(int row, int texel) {
  int head = row / segments - firstHead;
  vec4 sums = vec4(0.0);
  for (int group = 0; group < groups; group++) {
    vec4 logSums = readRowLogSums(head * groups + group, 0);
    for (int c = 0; c < 4; c++) {
      int key = (row % segments) * segmentSize + 4 * texel + c;
      int place = key % 512;
      ivec2 at = scoresAt((head * chunks + key / 512) * groups + group);
      vec4 weights = exp2(fetchScores(at, place % 64, place / 64) - logSums);
      sums[c] += dot(weights, vec4(1.0));
    }
  }
  result0 = sums / float(proxyRows);
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
