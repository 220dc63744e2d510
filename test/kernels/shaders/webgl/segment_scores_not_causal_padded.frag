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

uniform sampler2DArray key;
uniform int keyShift;
uniform int keyTexels;
ivec2 keyAt(int row) {
  return ivec2(row & ((1 << keyShift) - 1), (row >> keyShift) * keyTexels);
}
vec4 fetchKey(ivec2 at, int texel, int layer) {
  return texelFetch(key, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKey(int row, int texel) {
  return fetchKey(keyAt(row), texel, 0);
}

uniform sampler2DArray keyLengths;
uniform int keyLengthsShift;
uniform int keyLengthsTexels;
ivec2 keyLengthsAt(int row) {
  return ivec2(row & ((1 << keyLengthsShift) - 1), (row >> keyLengthsShift) * keyLengthsTexels);
}
vec4 fetchKeyLengths(ivec2 at, int texel, int layer) {
  return texelFetch(keyLengths, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKeyLengths(int row, int texel) {
  return fetchKeyLengths(keyLengthsAt(row), texel, 0);
}
uniform int heads;
uniform int keyValueHeads;
uniform int queryLength;
uniform int keyLength;
uniform int segmentSize;
uniform int hasPositions;
uniform int firstPosition;
uniform int firstHead;
uniform int segments;
uniform int tiles;
uniform float logitScale;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
// A fragment computes the scores of four rows and one tile of 4 keys.

int keyBase(int head) {
  return ((head / heads) * keyValueHeads + (head % heads) / (heads / keyValueHeads)) * keyLength;
}
int keyEnd(int head) {
  return int(clamp(readKeyLengths(head / heads, 0).x, 0.0, float(keyLength)));
}
ivec2 orderRange(int head, int segment) {
  int last = hasPositions == 1 ? clamp(keyEnd(head) - firstPosition, 0, queryLength) : queryLength;
  int first = max(last - 32, 0);
  return min(ivec2(first, first + 32), last);
}

ivec4 orNone(ivec4 positions, int end) {
  return ivec4(mix(vec4(positions), vec4(-1.0), greaterThanEqual(positions, ivec4(end))));
}

vec4 visible(int key, ivec4 queries, vec4 scores) {
  if (key < 0) {
    return vec4(-1e30);
  }
  return scores;
}
void compute(int row, int tile) {
  int segmentRow = divide(row, 8);
  int headInRange = divide(segmentRow, segments);
  int head = firstHead + headInRange;
  int segment = segmentRow - headInRange * segments;
  ivec2 range = orderRange(head, segment);
  // Nobody reads the scores of a segment that has no rows behind it.
  if (range.x >= range.y) {
    discard;
  }
  // Padding is not looked at, for it may hold what is no number.
  ivec4 queries = min(range.x + ivec4(0, 1, 2, 3) * 8 + row - segmentRow * 8, range.y - 1);
  int firstKey = keyBase(head);
  ivec4 positions0 = segment * segmentSize + tile + (ivec4(0, 1, 2, 3) + 0) * tiles;
  ivec4 keys0 = orNone(positions0, min((segment + 1) * segmentSize, keyEnd(head)));

  ivec2 query0 = queryAt(head * queryLength + min(queries[0], queryLength - 1));
  ivec2 query1 = queryAt(head * queryLength + min(queries[1], queryLength - 1));
  ivec2 query2 = queryAt(head * queryLength + min(queries[2], queryLength - 1));
  ivec2 query3 = queryAt(head * queryLength + min(queries[3], queryLength - 1));
  ivec2 key0 = keyAt(firstKey + min(positions0[0], keyLength - 1));
  ivec2 key1 = keyAt(firstKey + min(positions0[1], keyLength - 1));
  ivec2 key2 = keyAt(firstKey + min(positions0[2], keyLength - 1));
  ivec2 key3 = keyAt(firstKey + min(positions0[3], keyLength - 1));
  vec4 score0 = vec4(0.0);
  vec4 score1 = vec4(0.0);
  vec4 score2 = vec4(0.0);
  vec4 score3 = vec4(0.0);
  for (int v = 0; v < 16; v++) {
    vec4 q0 = fetchQuery(query0, v, 0);
    vec4 q1 = fetchQuery(query1, v, 0);
    vec4 q2 = fetchQuery(query2, v, 0);
    vec4 q3 = fetchQuery(query3, v, 0);
    vec4 k;
    k = fetchKey(key0, v, 0);
    score0 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key1, v, 0);
    score1 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key2, v, 0);
    score2 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key3, v, 0);
    score3 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
  }
  result0 = visible(keys0[0], queries, logitScale * score0);
  result1 = visible(keys0[1], queries, logitScale * score1);
  result2 = visible(keys0[2], queries, logitScale * score2);
  result3 = visible(keys0[3], queries, logitScale * score3);
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
