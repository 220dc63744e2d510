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

uniform sampler2DArray summaries;
uniform int summariesShift;
uniform int summariesTexels;
ivec2 summariesAt(int row) {
  return ivec2(row & ((1 << summariesShift) - 1), (row >> summariesShift) * summariesTexels);
}
vec4 fetchSummaries(ivec2 at, int texel, int layer) {
  return texelFetch(summaries, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSummaries(int row, int texel) {
  return fetchSummaries(summariesAt(row), texel, 0);
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
uniform float varianceScale;
uniform float varianceCap;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
layout(location = 4) out vec4 result4;
layout(location = 5) out vec4 result5;
layout(location = 6) out vec4 result6;
layout(location = 7) out vec4 result7;
// A fragment takes four rows and 8 key blocks, each block a layer.

int candidateBlocks(int queryBlock) {
  return (queryOffset + queryBlock * blockSize) / segmentSize * blocksPerSegment;
}
int competingBlocks(int head, int queryBlock) {
  return candidateBlocks(queryBlock);
}

ivec4 rowsOf(int group, int queryBlock) {
  int first = queryBlock * blockSize;
  int count = min(blockSize, queryLength - first);
  ivec4 places = ivec4(1, 2, 3, 4) + 4 * group;
  return first + max(places * count / 16 - 1, ivec4(0));
}
void compute(int row, int tile) {
  int blockRow = firstBlockRow + divide(row, groups);
  int group = row - (blockRow - firstBlockRow) * groups;
  int head = blockRow / queryBlocks;
  int queryBlock = blockRow % queryBlocks;
  int firstBlock = tile * 8;
  int competing = competingBlocks(head, queryBlock);
  if (firstBlock >= competing) {
    result0 = vec4(-1e30);
    result1 = vec4(-1e30);
    result2 = vec4(-1e30);
    result3 = vec4(-1e30);
    result4 = vec4(-1e30);
    result5 = vec4(-1e30);
    result6 = vec4(-1e30);
    result7 = vec4(-1e30);
    return;
  }
  ivec4 queries = rowsOf(group, queryBlock);
  int end = keyLength;

  ivec2 query0 = queryAt(head * queryLength + min(queries[0], queryLength - 1));
  ivec2 query1 = queryAt(head * queryLength + min(queries[1], queryLength - 1));
  ivec2 query2 = queryAt(head * queryLength + min(queries[2], queryLength - 1));
  ivec2 query3 = queryAt(head * queryLength + min(queries[3], queryLength - 1));
  ivec2 block0 = summariesAt(head * blocks + min(firstBlock + 0, blocks - 1));
  ivec2 block1 = summariesAt(head * blocks + min(firstBlock + 1, blocks - 1));
  ivec2 block2 = summariesAt(head * blocks + min(firstBlock + 2, blocks - 1));
  ivec2 block3 = summariesAt(head * blocks + min(firstBlock + 3, blocks - 1));
  ivec2 block4 = summariesAt(head * blocks + min(firstBlock + 4, blocks - 1));
  ivec2 block5 = summariesAt(head * blocks + min(firstBlock + 5, blocks - 1));
  ivec2 block6 = summariesAt(head * blocks + min(firstBlock + 6, blocks - 1));
  ivec2 block7 = summariesAt(head * blocks + min(firstBlock + 7, blocks - 1));
  vec4 byMean0 = vec4(0.0);
  vec4 byVariance0 = vec4(0.0);
  vec4 byMean1 = vec4(0.0);
  vec4 byVariance1 = vec4(0.0);
  vec4 byMean2 = vec4(0.0);
  vec4 byVariance2 = vec4(0.0);
  vec4 byMean3 = vec4(0.0);
  vec4 byVariance3 = vec4(0.0);
  vec4 byMean4 = vec4(0.0);
  vec4 byVariance4 = vec4(0.0);
  vec4 byMean5 = vec4(0.0);
  vec4 byVariance5 = vec4(0.0);
  vec4 byMean6 = vec4(0.0);
  vec4 byVariance6 = vec4(0.0);
  vec4 byMean7 = vec4(0.0);
  vec4 byVariance7 = vec4(0.0);
  for (int v = 0; v < 16; v++) {
    vec4 q0 = fetchQuery(query0, v, 0);
    vec4 square0 = q0 * q0;
    vec4 q1 = fetchQuery(query1, v, 0);
    vec4 square1 = q1 * q1;
    vec4 q2 = fetchQuery(query2, v, 0);
    vec4 square2 = q2 * q2;
    vec4 q3 = fetchQuery(query3, v, 0);
    vec4 square3 = q3 * q3;
    vec4 x;
    x = fetchSummaries(block0, v, 0);
    byMean0 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block0, v, 1);
    byVariance0 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
    x = fetchSummaries(block1, v, 0);
    byMean1 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block1, v, 1);
    byVariance1 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
    x = fetchSummaries(block2, v, 0);
    byMean2 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block2, v, 1);
    byVariance2 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
    x = fetchSummaries(block3, v, 0);
    byMean3 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block3, v, 1);
    byVariance3 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
    x = fetchSummaries(block4, v, 0);
    byMean4 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block4, v, 1);
    byVariance4 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
    x = fetchSummaries(block5, v, 0);
    byMean5 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block5, v, 1);
    byVariance5 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
    x = fetchSummaries(block6, v, 0);
    byMean6 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block6, v, 1);
    byVariance6 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
    x = fetchSummaries(block7, v, 0);
    byMean7 += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block7, v, 1);
    byVariance7 += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));
  }
  result0 = firstBlock + 0 < competing
    ? logitScale * byMean0 + min(varianceScale * byVariance0, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 0) * blockSize, blockSize)))
    : vec4(-1e30);
  result1 = firstBlock + 1 < competing
    ? logitScale * byMean1 + min(varianceScale * byVariance1, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 1) * blockSize, blockSize)))
    : vec4(-1e30);
  result2 = firstBlock + 2 < competing
    ? logitScale * byMean2 + min(varianceScale * byVariance2, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 2) * blockSize, blockSize)))
    : vec4(-1e30);
  result3 = firstBlock + 3 < competing
    ? logitScale * byMean3 + min(varianceScale * byVariance3, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 3) * blockSize, blockSize)))
    : vec4(-1e30);
  result4 = firstBlock + 4 < competing
    ? logitScale * byMean4 + min(varianceScale * byVariance4, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 4) * blockSize, blockSize)))
    : vec4(-1e30);
  result5 = firstBlock + 5 < competing
    ? logitScale * byMean5 + min(varianceScale * byVariance5, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 5) * blockSize, blockSize)))
    : vec4(-1e30);
  result6 = firstBlock + 6 < competing
    ? logitScale * byMean6 + min(varianceScale * byVariance6, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 6) * blockSize, blockSize)))
    : vec4(-1e30);
  result7 = firstBlock + 7 < competing
    ? logitScale * byMean7 + min(varianceScale * byVariance7, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + 7) * blockSize, blockSize)))
    : vec4(-1e30);
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
