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

layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
// A fragment walks over a row of scores.
void compute(int row, int texel) {
  ivec2 at = scoresAt(row);
  vec4 rowMax = vec4(-1e29);
  vec4 rowSum = vec4(0.0);
  for (int t = 0; t < 64; t++) {
    vec4 s0 = fetchScores(at, t, 0);
    vec4 s1 = fetchScores(at, t, 1);
    vec4 s2 = fetchScores(at, t, 2);
    vec4 s3 = fetchScores(at, t, 3);
    vec4 s4 = fetchScores(at, t, 4);
    vec4 s5 = fetchScores(at, t, 5);
    vec4 s6 = fetchScores(at, t, 6);
    vec4 s7 = fetchScores(at, t, 7);
    vec4 newMax = rowMax;
    newMax = max(newMax, s0);
    newMax = max(newMax, s1);
    newMax = max(newMax, s2);
    newMax = max(newMax, s3);
    newMax = max(newMax, s4);
    newMax = max(newMax, s5);
    newMax = max(newMax, s6);
    newMax = max(newMax, s7);
    rowSum *= exp2(rowMax - newMax);
    rowSum += exp2(s0 - newMax);
    rowSum += exp2(s1 - newMax);
    rowSum += exp2(s2 - newMax);
    rowSum += exp2(s3 - newMax);
    rowSum += exp2(s4 - newMax);
    rowSum += exp2(s5 - newMax);
    rowSum += exp2(s6 - newMax);
    rowSum += exp2(s7 - newMax);
    rowMax = newMax;
  }
  result0 = rowMax;
  result1 = rowSum;
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
