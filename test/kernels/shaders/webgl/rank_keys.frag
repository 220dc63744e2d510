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

uniform sampler2DArray keyScores;
uniform int keyScoresShift;
uniform int keyScoresTexels;
ivec2 keyScoresAt(int row) {
  return ivec2(row & ((1 << keyScoresShift) - 1), (row >> keyScoresShift) * keyScoresTexels);
}
vec4 fetchKeyScores(ivec2 at, int texel, int layer) {
  return texelFetch(keyScores, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKeyScores(int row, int texel) {
  return fetchKeyScores(keyScoresAt(row), texel, 0);
}
uniform int segmentSize;
layout(location = 0) out vec4 result0;
// A fragment compares its four keys with all keys of the segment: a total order without a sorting network, for segments of
// any size.
//
// Scores are compared by their bits: for floats that are not negative the order is the same, and it stays a total order
// when there are NaNs, which are all one here, so that the ranks are a permutation whatever the input, and the same everywhere.
uvec4 bitsOf(vec4 scores) {
  return min(floatBitsToUint(scores) & uvec4(0x7fffffffu), uvec4(0x7f800001u));
}
void compute(int row, int texel) {
  ivec2 at = keyScoresAt(row);
  uvec4 own = bitsOf(fetchKeyScores(at, texel, 0));
  ivec4 ownKeys = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 before = ivec4(0);
  for (int t = 0; 4 * t < segmentSize; t++) {
    uvec4 others = bitsOf(fetchKeyScores(at, t, 0));
    for (int c = 0; c < 4 && 4 * t + c < segmentSize; c++) {
      uvec4 other = uvec4(others[c]);
      ivec4 wins = ivec4(greaterThan(other, own));
      ivec4 ties = ivec4(equal(other, own)) * ivec4(lessThan(ivec4(4 * t + c), ownKeys));
      before += wins + ties;
    }
  }
  result0 = vec4(before);
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
