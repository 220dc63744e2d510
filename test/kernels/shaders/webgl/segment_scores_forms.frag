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

uniform sampler2DArray alibiSlopes;
uniform int alibiSlopesShift;
uniform int alibiSlopesTexels;
ivec2 alibiSlopesAt(int row) {
  return ivec2(row & ((1 << alibiSlopesShift) - 1), (row >> alibiSlopesShift) * alibiSlopesTexels);
}
vec4 fetchAlibiSlopes(ivec2 at, int texel, int layer) {
  return texelFetch(alibiSlopes, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readAlibiSlopes(int row, int texel) {
  return fetchAlibiSlopes(alibiSlopesAt(row), texel, 0);
}

uniform sampler2DArray mask;
uniform int maskShift;
uniform int maskTexels;
ivec2 maskAt(int row) {
  return ivec2(row & ((1 << maskShift) - 1), (row >> maskShift) * maskTexels);
}
vec4 fetchMask(ivec2 at, int texel, int layer) {
  return texelFetch(mask, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readMask(int row, int texel) {
  return fetchMask(maskAt(row), texel, 0);
}
uniform int heads;
uniform int keyValueHeads;
uniform int queryLength;
uniform int keyLength;
uniform int queryOffset;
uniform int segmentSize;
uniform int maskBatchStep;
uniform int maskHeadStep;
uniform int maskRowStep;
uniform int maskBlockStep;
uniform int maskBlockSize;
uniform int maskTiles;
uniform int maskLastRow;
uniform int maskLastKey;
uniform int hasPositions;
uniform int firstPosition;
uniform int firstHead;
uniform int segments;
uniform int tiles;
uniform float logitScale;
uniform float softCap;
uniform float inverseSoftCap;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
layout(location = 4) out vec4 result4;
layout(location = 5) out vec4 result5;
layout(location = 6) out vec4 result6;
layout(location = 7) out vec4 result7;
// A fragment computes the scores of four rows and one tile of 8 keys.

int keyBase(int head) {
  return ((head / heads) * keyValueHeads + (head % heads) / (heads / keyValueHeads)) * keyLength;
}
int keyEnd(int head) {
  return int(clamp(readKeyLengths(head / heads, 0).x, 0.0, float(keyLength)));
}
ivec2 orderRange(int head, int segment) {
  int last = hasPositions == 1 ? clamp(keyEnd(head) - firstPosition, 0, queryLength) : queryLength;
  int first = max((segment + 1) * segmentSize - firstPosition, 0);
  return min(ivec2(first, first + 32), last);
}

ivec4 orNone(ivec4 positions, int end) {
  return ivec4(mix(vec4(positions), vec4(-1.0), greaterThanEqual(positions, ivec4(end))));
}

// By its series where the quotient would lose digits.
vec4 softTanh(vec4 x) {
  vec4 power = exp2(-2.8853900817779268 * abs(x));
  vec4 square = x * x;
  vec4 series = x * (1.0 + square * (-0.3333333333333333 + square * (0.13333333333333333 - 0.05396825396825397 * square)));
  return mix(sign(x) * (1.0 - power) / (1.0 + power), series, lessThan(abs(x), vec4(0.25)));
}
float slope;
vec4 formed(vec4 scores, ivec4 distances) {
  scores = softCap * softTanh(scores * inverseSoftCap);
  scores -= slope * vec4(abs(distances));
  return scores;
}
vec4 visible(int key, ivec4 queries, vec4 scores) {
  if (key < 0) {
    return vec4(-1e30);
  }
  scores = formed(scores, queries + queryOffset - key);
  return scores;
}
float maskOfKey(int head, int query, int key) {
  int row = (head / heads) * maskBatchStep + (head % heads) * maskHeadStep + clamp(query, 0, maskLastRow) * maskRowStep;
  if (maskBlockStep == 0) {
    return readMask(row, 0).x;
  }
  int known = clamp(key, 0, maskLastKey);
  int block = divide(known, maskBlockSize);
  int inBlock = known - block * maskBlockSize;
  int place = divide(inBlock, maskTiles);
  int column = (inBlock - place * maskTiles) * 8 + place;
  return readMask(row + block, column / 4)[column % 4];
}
vec4 maskOf(int head, ivec4 queries, ivec4 keys) {
  vec4 four;
  for (int i = 0; i < 4; i++) {
    four[i] = maskOfKey(head, queries[i], keys[i]);
  }
  return four;
}
vec4 masked(vec4 scores, vec4 mask) {
  bvec4 hides = equal(floatBitsToUint(mask), uvec4(0xff800000u));
  return mix(scores + 1.4426950408889634 * max(mask, vec4(-1e28)), vec4(-1e30), hides);
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
  slope = 1.4426950408889634 * readAlibiSlopes(head % heads, 0).x;
  int firstKey = keyBase(head);
  ivec4 positions0 = segment * segmentSize + tile + (ivec4(0, 1, 2, 3) + 0) * tiles;
  ivec4 keys0 = orNone(positions0, min((segment + 1) * segmentSize, keyEnd(head)));
  ivec4 positions1 = segment * segmentSize + tile + (ivec4(0, 1, 2, 3) + 4) * tiles;
  ivec4 keys1 = orNone(positions1, min((segment + 1) * segmentSize, keyEnd(head)));

  ivec2 query0 = queryAt(head * queryLength + min(queries[0], queryLength - 1));
  ivec2 query1 = queryAt(head * queryLength + min(queries[1], queryLength - 1));
  ivec2 query2 = queryAt(head * queryLength + min(queries[2], queryLength - 1));
  ivec2 query3 = queryAt(head * queryLength + min(queries[3], queryLength - 1));
  ivec2 key0 = keyAt(firstKey + min(positions0[0], keyLength - 1));
  ivec2 key1 = keyAt(firstKey + min(positions0[1], keyLength - 1));
  ivec2 key2 = keyAt(firstKey + min(positions0[2], keyLength - 1));
  ivec2 key3 = keyAt(firstKey + min(positions0[3], keyLength - 1));
  ivec2 key4 = keyAt(firstKey + min(positions1[0], keyLength - 1));
  ivec2 key5 = keyAt(firstKey + min(positions1[1], keyLength - 1));
  ivec2 key6 = keyAt(firstKey + min(positions1[2], keyLength - 1));
  ivec2 key7 = keyAt(firstKey + min(positions1[3], keyLength - 1));
  vec4 score0 = vec4(0.0);
  vec4 score1 = vec4(0.0);
  vec4 score2 = vec4(0.0);
  vec4 score3 = vec4(0.0);
  vec4 score4 = vec4(0.0);
  vec4 score5 = vec4(0.0);
  vec4 score6 = vec4(0.0);
  vec4 score7 = vec4(0.0);
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
    k = fetchKey(key4, v, 0);
    score4 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key5, v, 0);
    score5 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key6, v, 0);
    score6 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key7, v, 0);
    score7 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
  }
  result0 = masked(visible(keys0[0], queries, logitScale * score0), maskOf(head, queries, ivec4(keys0[0])));
  result1 = masked(visible(keys0[1], queries, logitScale * score1), maskOf(head, queries, ivec4(keys0[1])));
  result2 = masked(visible(keys0[2], queries, logitScale * score2), maskOf(head, queries, ivec4(keys0[2])));
  result3 = masked(visible(keys0[3], queries, logitScale * score3), maskOf(head, queries, ivec4(keys0[3])));
  result4 = masked(visible(keys1[0], queries, logitScale * score4), maskOf(head, queries, ivec4(keys1[0])));
  result5 = masked(visible(keys1[1], queries, logitScale * score5), maskOf(head, queries, ivec4(keys1[1])));
  result6 = masked(visible(keys1[2], queries, logitScale * score6), maskOf(head, queries, ivec4(keys1[2])));
  result7 = masked(visible(keys1[3], queries, logitScale * score7), maskOf(head, queries, ivec4(keys1[3])));
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
