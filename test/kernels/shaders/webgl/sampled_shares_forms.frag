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

uniform sampler2DArray keyIndices;
uniform int keyIndicesShift;
uniform int keyIndicesTexels;
ivec2 keyIndicesAt(int row) {
  return ivec2(row & ((1 << keyIndicesShift) - 1), (row >> keyIndicesShift) * keyIndicesTexels);
}
vec4 fetchKeyIndices(ivec2 at, int texel, int layer) {
  return texelFetch(keyIndices, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKeyIndices(int row, int texel) {
  return fetchKeyIndices(keyIndicesAt(row), texel, 0);
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
uniform int queryLength;
uniform int keyLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int queryBlocks;
uniform int keyBlocks;
uniform int window;
uniform int firstHead;
uniform int firstBlockRow;
uniform int groups;
uniform int groupsOfPhase;
uniform int orderTiles;
uniform int maskBatchStep;
uniform int maskHeadStep;
uniform int maskRowStep;
uniform int maskBlockStep;
uniform int maskBlockSize;
uniform int maskTiles;
uniform int maskLastRow;
uniform int maskLastKey;
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
// A fragment takes 8 key blocks and walks over these side by side, one sampled key of each at a time.

int firstVisibleBlock(int queryBlock) {
  int firstKey = max(0, queryOffset + queryBlock * blockSize - window + 1);
  return min(firstKey / segmentSize * segmentSize / keyBlockSize, keyBlocks);
}
bool seesFirstKey(int queryBlock) {
  return queryOffset + queryBlock * blockSize < window;
}
int candidateBlocks(int queryBlock) {
  return min(((queryOffset + min((queryBlock + 1) * blockSize, queryLength) + window - 2) / segmentSize + 1) * segmentSize / keyBlockSize, keyBlocks);
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
ivec4 originalsOf(int head, ivec4 slots) {
  ivec4 originals = ivec4(-1);
  for (int i = 0; i < 4; i++) {
    if (slots[i] >= 0) {
      int block = divide(slots[i], keyBlockSize);
      int inBlock = slots[i] - block * keyBlockSize;
      int key = divide(inBlock, orderTiles);
      int column = (inBlock - key * orderTiles) * 8 + key;
      originals[i] = int(readKeyIndices(head * keyBlocks + block, column / 4)[column % 4]);
    }
  }
  return originals;
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
  return mix(scores, vec4(-1e30), greaterThanEqual(abs(distances), ivec4(window)));
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
  return mix(vec4(-1e30), scores, notEqual(mask, vec4(0.0)));
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
  slope = 1.4426950408889634 * readAlibiSlopes(group.head % heads, 0).x;
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
    keys0 = originalsOf(head, keys0);
    ivec4 positions1 = first1 + step;
    ivec4 keys1 = ivec4(mix(vec4(positions1), vec4(-1.0), greaterThanEqual(positions1, end1)));
    keys1 = originalsOf(head, keys1);

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
    share0 += exp2(atMost0(masked(visible(keys0[0], queries, logitScale * score0), maskOf(head, queries, ivec4(keys0[0]))) - logSums));
    share1 += exp2(atMost0(masked(visible(keys0[1], queries, logitScale * score1), maskOf(head, queries, ivec4(keys0[1]))) - logSums));
    share2 += exp2(atMost0(masked(visible(keys0[2], queries, logitScale * score2), maskOf(head, queries, ivec4(keys0[2]))) - logSums));
    share3 += exp2(atMost0(masked(visible(keys0[3], queries, logitScale * score3), maskOf(head, queries, ivec4(keys0[3]))) - logSums));
    share4 += exp2(atMost0(masked(visible(keys1[0], queries, logitScale * score4), maskOf(head, queries, ivec4(keys1[0]))) - logSums));
    share5 += exp2(atMost0(masked(visible(keys1[1], queries, logitScale * score5), maskOf(head, queries, ivec4(keys1[1]))) - logSums));
    share6 += exp2(atMost0(masked(visible(keys1[2], queries, logitScale * score6), maskOf(head, queries, ivec4(keys1[2]))) - logSums));
    share7 += exp2(atMost0(masked(visible(keys1[3], queries, logitScale * score7), maskOf(head, queries, ivec4(keys1[3]))) - logSums));
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
