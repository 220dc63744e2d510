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

uniform sampler2DArray probes;
uniform int probesShift;
uniform int probesTexels;
ivec2 probesAt(int row) {
  return ivec2(row & ((1 << probesShift) - 1), (row >> probesShift) * probesTexels);
}
vec4 fetchProbes(ivec2 at, int texel, int layer) {
  return texelFetch(probes, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readProbes(int row, int texel) {
  return fetchProbes(probesAt(row), texel, 0);
}
uniform int heads;
uniform int keyHeads;
uniform int keyLength;
uniform int blocks;
uniform int queryBlocks;
uniform int queryLength;
uniform int queryOffset;
uniform int blockSize;
uniform int segmentSize;
uniform int blocksPerSegment;
uniform int firstBlockRow;
uniform int groups;
uniform float logitScale;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
layout(location = 4) out vec4 result4;
layout(location = 5) out vec4 result5;
layout(location = 6) out vec4 result6;
layout(location = 7) out vec4 result7;
// A fragment takes four rows and 8 key blocks, and walks over these side by side, one key of each at a time: an online
// softmax for each block.

int keyBase(int head) {
  return ((head / heads) * keyHeads + (head % heads) / (heads / keyHeads)) * keyLength;
}

int visibleBlocks(int queryBlock) {
  int lastRow = min((queryBlock + 1) * blockSize, queryLength) - 1;
  return min(((queryOffset + lastRow) / segmentSize + 1) * blocksPerSegment, blocks);
}

vec4 visible(int key, ivec4 queries, vec4 scores) {
  if (key < 0) {
    return vec4(-1e30);
  }
  return mix(scores, vec4(-1e30), greaterThan(ivec4(key - queryOffset), queries));
}
ivec4 rowsOf(int blockRow, int group, int queryBlock) {
  return queryBlock * blockSize + ivec4(readProbes(blockRow, group));
}
void compute(int row, int tile) {
  int blockRow = firstBlockRow + divide(row, groups);
  int group = row - (blockRow - firstBlockRow) * groups;
  int head = blockRow / queryBlocks;
  int queryBlock = blockRow % queryBlocks;
  ivec4 queries = rowsOf(blockRow, group, queryBlock);
  int firstBlock = tile * 8;
  int end = visibleBlocks(queryBlock);
  int firstKey = keyBase(head);
  vec4 rowMax0 = vec4(-1e29);
  vec4 rowSum0 = vec4(0.0);
  vec4 rowMax1 = vec4(-1e29);
  vec4 rowSum1 = vec4(0.0);
  vec4 rowMax2 = vec4(-1e29);
  vec4 rowSum2 = vec4(0.0);
  vec4 rowMax3 = vec4(-1e29);
  vec4 rowSum3 = vec4(0.0);
  vec4 rowMax4 = vec4(-1e29);
  vec4 rowSum4 = vec4(0.0);
  vec4 rowMax5 = vec4(-1e29);
  vec4 rowSum5 = vec4(0.0);
  vec4 rowMax6 = vec4(-1e29);
  vec4 rowSum6 = vec4(0.0);
  vec4 rowMax7 = vec4(-1e29);
  vec4 rowSum7 = vec4(0.0);
  for (int i = 0; firstBlock < end && i < keyIndicesTexels; i++) {
    ivec4 indices0 = firstBlock + 0 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 0, i)) : ivec4(-1);
    ivec4 indices1 = firstBlock + 1 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 1, i)) : ivec4(-1);
    ivec4 indices2 = firstBlock + 2 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 2, i)) : ivec4(-1);
    ivec4 indices3 = firstBlock + 3 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 3, i)) : ivec4(-1);
    ivec4 indices4 = firstBlock + 4 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 4, i)) : ivec4(-1);
    ivec4 indices5 = firstBlock + 5 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 5, i)) : ivec4(-1);
    ivec4 indices6 = firstBlock + 6 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 6, i)) : ivec4(-1);
    ivec4 indices7 = firstBlock + 7 < end ? ivec4(readKeyIndices(head * blocks + firstBlock + 7, i)) : ivec4(-1);
    for (int c = 0; c < 4; c++) {
      ivec4 keys0 = ivec4(indices0[c], indices1[c], indices2[c], indices3[c]);
      ivec4 keys1 = ivec4(indices4[c], indices5[c], indices6[c], indices7[c]);
      // What is no key is read as if it were the first, and masked.
      ivec4 positions0 = max(keys0, ivec4(0));
      ivec4 positions1 = max(keys1, ivec4(0));

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
      vec4 s;
      vec4 newMax;
      s = visible(keys0[0], queries, logitScale * score0);
      newMax = max(rowMax0, s);
      rowSum0 = rowSum0 * exp2(rowMax0 - newMax) + exp2(s - newMax);
      rowMax0 = newMax;
      s = visible(keys0[1], queries, logitScale * score1);
      newMax = max(rowMax1, s);
      rowSum1 = rowSum1 * exp2(rowMax1 - newMax) + exp2(s - newMax);
      rowMax1 = newMax;
      s = visible(keys0[2], queries, logitScale * score2);
      newMax = max(rowMax2, s);
      rowSum2 = rowSum2 * exp2(rowMax2 - newMax) + exp2(s - newMax);
      rowMax2 = newMax;
      s = visible(keys0[3], queries, logitScale * score3);
      newMax = max(rowMax3, s);
      rowSum3 = rowSum3 * exp2(rowMax3 - newMax) + exp2(s - newMax);
      rowMax3 = newMax;
      s = visible(keys1[0], queries, logitScale * score4);
      newMax = max(rowMax4, s);
      rowSum4 = rowSum4 * exp2(rowMax4 - newMax) + exp2(s - newMax);
      rowMax4 = newMax;
      s = visible(keys1[1], queries, logitScale * score5);
      newMax = max(rowMax5, s);
      rowSum5 = rowSum5 * exp2(rowMax5 - newMax) + exp2(s - newMax);
      rowMax5 = newMax;
      s = visible(keys1[2], queries, logitScale * score6);
      newMax = max(rowMax6, s);
      rowSum6 = rowSum6 * exp2(rowMax6 - newMax) + exp2(s - newMax);
      rowMax6 = newMax;
      s = visible(keys1[3], queries, logitScale * score7);
      newMax = max(rowMax7, s);
      rowSum7 = rowSum7 * exp2(rowMax7 - newMax) + exp2(s - newMax);
      rowMax7 = newMax;
    }
  }
  result0 = mix(vec4(-1e30), rowMax0 + log2(rowSum0), notEqual(rowSum0, vec4(0.0)));
  result1 = mix(vec4(-1e30), rowMax1 + log2(rowSum1), notEqual(rowSum1, vec4(0.0)));
  result2 = mix(vec4(-1e30), rowMax2 + log2(rowSum2), notEqual(rowSum2, vec4(0.0)));
  result3 = mix(vec4(-1e30), rowMax3 + log2(rowSum3), notEqual(rowSum3, vec4(0.0)));
  result4 = mix(vec4(-1e30), rowMax4 + log2(rowSum4), notEqual(rowSum4, vec4(0.0)));
  result5 = mix(vec4(-1e30), rowMax5 + log2(rowSum5), notEqual(rowSum5, vec4(0.0)));
  result6 = mix(vec4(-1e30), rowMax6 + log2(rowSum6), notEqual(rowSum6, vec4(0.0)));
  result7 = mix(vec4(-1e30), rowMax7 + log2(rowSum7), notEqual(rowSum7, vec4(0.0)));
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
