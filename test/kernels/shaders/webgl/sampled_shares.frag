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

uniform sampler2DArray logSums;
uniform int logSumsShift;
uniform int logSumsTexels;
ivec2 logSumsAt(int row) {
  return ivec2(row & ((1 << logSumsShift) - 1), (row >> logSumsShift) * logSumsTexels);
}
vec4 fetchLogSums(ivec2 at, int texel, int layer) {
  return texelFetch(logSums, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readLogSums(int row, int texel) {
  return fetchLogSums(logSumsAt(row), texel, 0);
}
uniform int queryLength;
uniform int keyLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int queryBlocks;
uniform int firstHead;
uniform int firstBlockRow;
uniform int groups;
uniform int groupsOfPhase;
uniform float logitScale;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
layout(location = 4) out vec4 result4;
layout(location = 5) out vec4 result5;
layout(location = 6) out vec4 result6;
layout(location = 7) out vec4 result7;
// A fragment takes 8 key blocks and walks over these side by side, one sampled key of each at a time.

int candidateBlocks(int queryBlock) {
  return (queryOffset + queryBlock * blockSize) / segmentSize * segmentSize / keyBlockSize;
}
int competingKeys(int head, int queryBlock) {
  return min(candidateBlocks(queryBlock) * keyBlockSize, keyLength);
}

struct Group {
  int head;
  int block;
  int phase;
  ivec4 rows;
};
Group groupAt(int row) {
  int blockInRange = divide(row, groups);
  int group = row - blockInRange * groups;
  int phase = divide(group, groupsOfPhase);
  ivec4 fours = group - phase * groupsOfPhase + ivec4(0, 1, 2, 3) * groupsOfPhase;
  int blockRow = firstBlockRow + blockInRange;
  int head = divide(blockRow, queryBlocks);
  return Group(
    head,
    blockRow - head * queryBlocks,
    phase,
    4 * fours + ((phase - fours) & 3)
  );
}

vec4 visible(int key, ivec4 queries, vec4 scores) {
  if (key < 0) {
    return vec4(-1e30);
  }
  return scores;
}
// A NaN stays one, and so does the infinity that exp2 makes of one on some devices.
vec4 atMost1(vec4 x) {
  return mix(x, vec4(1.0), notEqual(vec4(greaterThan(x, vec4(1.0))) * vec4(lessThan(x, vec4(1e38))), vec4(0.0)));
}
vec4 atMost0(vec4 x) {
  return mix(x, vec4(0.0), greaterThan(x, vec4(0.0)));
}
void compute(int row, int tile) {
  Group group = groupAt(row);
  int head = group.head;
  int competing = competingKeys(head, group.block);
  // Nobody reads the tiles of blocks that do not compete.
  if (tile * 8 * keyBlockSize >= competing) {
    discard;
  }
  ivec4 queries = group.block * blockSize + group.rows;
  int firstKey = (head - firstHead) * keyLength;
  vec4 logSums = readLogSums(row, 0);
  vec4 share0 = vec4(0.0);
  vec4 share1 = vec4(0.0);
  vec4 share2 = vec4(0.0);
  vec4 share3 = vec4(0.0);
  vec4 share4 = vec4(0.0);
  vec4 share5 = vec4(0.0);
  vec4 share6 = vec4(0.0);
  vec4 share7 = vec4(0.0);
  ivec4 first0 = (tile * 8 + ivec4(0, 1, 2, 3) + 0) * keyBlockSize;
  ivec4 end0 = min(first0 + keyBlockSize, competing);
  first0 += -(first0 + group.phase) & 3;
  ivec4 first1 = (tile * 8 + ivec4(0, 1, 2, 3) + 4) * keyBlockSize;
  ivec4 end1 = min(first1 + keyBlockSize, competing);
  first1 += -(first1 + group.phase) & 3;
  for (int step = 0; step < keyBlockSize; step += 4) {
    ivec4 positions0 = first0 + step;
    ivec4 keys0 = ivec4(mix(vec4(positions0), vec4(-1.0), greaterThanEqual(positions0, end0)));
    ivec4 positions1 = first1 + step;
    ivec4 keys1 = ivec4(mix(vec4(positions1), vec4(-1.0), greaterThanEqual(positions1, end1)));

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
    share0 += exp2(atMost0(visible(keys0[0], queries, logitScale * score0) - logSums));
    share1 += exp2(atMost0(visible(keys0[1], queries, logitScale * score1) - logSums));
    share2 += exp2(atMost0(visible(keys0[2], queries, logitScale * score2) - logSums));
    share3 += exp2(atMost0(visible(keys0[3], queries, logitScale * score3) - logSums));
    share4 += exp2(atMost0(visible(keys1[0], queries, logitScale * score4) - logSums));
    share5 += exp2(atMost0(visible(keys1[1], queries, logitScale * score5) - logSums));
    share6 += exp2(atMost0(visible(keys1[2], queries, logitScale * score6) - logSums));
    share7 += exp2(atMost0(visible(keys1[3], queries, logitScale * score7) - logSums));
  }
  // Where a row's normaliser missed what it pays most to, a share can come out above 1.
  bvec4 exists = lessThan(group.rows, ivec4(min(blockSize, queryLength - group.block * blockSize)));
  share0 *= 4.0;
  result0 = mix(vec4(0.0), atMost1(share0), exists);
  share1 *= 4.0;
  result1 = mix(vec4(0.0), atMost1(share1), exists);
  share2 *= 4.0;
  result2 = mix(vec4(0.0), atMost1(share2), exists);
  share3 *= 4.0;
  result3 = mix(vec4(0.0), atMost1(share3), exists);
  share4 *= 4.0;
  result4 = mix(vec4(0.0), atMost1(share4), exists);
  share5 *= 4.0;
  result5 = mix(vec4(0.0), atMost1(share5), exists);
  share6 *= 4.0;
  result6 = mix(vec4(0.0), atMost1(share6), exists);
  share7 *= 4.0;
  result7 = mix(vec4(0.0), atMost1(share7), exists);
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
