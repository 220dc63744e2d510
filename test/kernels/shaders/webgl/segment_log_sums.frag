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
uniform int queryLength;
uniform int segmentSize;
uniform int firstPosition;
uniform int firstHead;
uniform int segments;
uniform int tiles;
layout(location = 0) out vec4 result0;
// A fragment walks over a row of scores. Rows that do not exist, or see nothing, get a sum so large that their weights are 0.

ivec2 orderRange(int head, int segment) {
  int last = queryLength;
  int first = max((segment + 1) * segmentSize - firstPosition, 0);
  return min(ivec2(first, first + 32), last);
}
vec4 logOfSums(vec4 sums) {
  uvec4 bits = floatBitsToUint(sums);
  bvec4 notFinite = equal(bits & uvec4(0x7f800000u), uvec4(0x7f800000u));
  return mix(log2(sums), uintBitsToFloat(bits | uvec4(0x7fc00000u)), notFinite);
}
void compute(int row, int texel) {
  int segmentRow = divide(row, 8);
  int headInRange = divide(segmentRow, segments);
  int head = firstHead + headInRange;
  int segment = segmentRow - headInRange * segments;
  ivec2 range = orderRange(head, segment);
  if (range.x >= range.y) {
    discard;
  }
  ivec2 at = scoresAt(row);
  vec4 rowMax = vec4(-1e29);
  vec4 rowSum = vec4(0.0);
  for (int tile = 0; tile < tiles; tile++) {
    vec4 s0 = fetchScores(at, tile, 0);
    vec4 s1 = fetchScores(at, tile, 1);
    vec4 s2 = fetchScores(at, tile, 2);
    vec4 s3 = fetchScores(at, tile, 3);
    vec4 s4 = fetchScores(at, tile, 4);
    vec4 s5 = fetchScores(at, tile, 5);
    vec4 s6 = fetchScores(at, tile, 6);
    vec4 s7 = fetchScores(at, tile, 7);
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
  ivec4 rows = range.x + ivec4(0, 1, 2, 3) * 8 + row - segmentRow * 8;
  vec4 logSums = mix(vec4(-(-1e30)), rowMax + logOfSums(rowSum), notEqual(rowSum, vec4(0.0)));
  result0 = mix(vec4(-(-1e30)), logSums, lessThan(rows, ivec4(range.y)));
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
