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
uniform int queryLength;
uniform int segmentSize;
uniform int firstPosition;
uniform int firstHead;
uniform int segments;
uniform int tiles;
layout(location = 0) out vec4 result0;
// A fragment adds up the weights of four keys over all rows.

ivec2 orderRange(int head, int segment) {
  int last = queryLength;
  int first = max((segment + 1) * segmentSize - firstPosition, 0);
  return min(ivec2(first, first + 32), last);
}
void compute(int row, int texel) {
  int segmentRow = row - firstHead * segments;
  int headInRange = divide(segmentRow, segments);
  int head = firstHead + headInRange;
  int segment = segmentRow - headInRange * segments;
  ivec2 range = orderRange(head, segment);
  if (range.x >= range.y) {
    result0 = vec4(0.0);
    return;
  }
  vec4 sums = vec4(0.0);
  for (int group = 0; group < 8; group++) {
    vec4 logSums = readRowLogSums(segmentRow * 8 + group, 0);
    ivec2 at = scoresAt(segmentRow * 8 + group);
    for (int c = 0; c < 4; c++) {
      int key = min(4 * texel + c, segmentSize - 1);
      int layer = divide(key, tiles);
      sums[c] += dot(exp2(fetchScores(at, key - layer * tiles, layer) - logSums), vec4(1.0));
    }
  }
  result0 = sums / float(range.y - range.x);
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
