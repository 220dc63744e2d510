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

uniform sampler2DArray dy;
uniform int dyShift;
uniform int dyTexels;
ivec2 dyAt(int row) {
  return ivec2(row & ((1 << dyShift) - 1), (row >> dyShift) * dyTexels);
}
vec4 fetchDy(ivec2 at, int texel, int layer) {
  return texelFetch(dy, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readDy(int row, int texel) {
  return fetchDy(dyAt(row), texel, 0);
}

uniform sampler2DArray statistics;
uniform int statisticsShift;
uniform int statisticsTexels;
ivec2 statisticsAt(int row) {
  return ivec2(row & ((1 << statisticsShift) - 1), (row >> statisticsShift) * statisticsTexels);
}
vec4 fetchStatistics(ivec2 at, int texel, int layer) {
  return texelFetch(statistics, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readStatistics(int row, int texel) {
  return fetchStatistics(statisticsAt(row), texel, 0);
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

uniform sampler2DArray valueMeans;
uniform int valueMeansShift;
uniform int valueMeansTexels;
ivec2 valueMeansAt(int row) {
  return ivec2(row & ((1 << valueMeansShift) - 1), (row >> valueMeansShift) * valueMeansTexels);
}
vec4 fetchValueMeans(ivec2 at, int texel, int layer) {
  return texelFetch(valueMeans, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readValueMeans(int row, int texel) {
  return fetchValueMeans(valueMeansAt(row), texel, 0);
}

uniform sampler2DArray kept;
uniform int keptShift;
uniform int keptTexels;
ivec2 keptAt(int row) {
  return ivec2(row & ((1 << keptShift) - 1), (row >> keptShift) * keptTexels);
}
vec4 fetchKept(ivec2 at, int texel, int layer) {
  return texelFetch(kept, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKept(int row, int texel) {
  return fetchKept(keptAt(row), texel, 0);
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
uniform float logitScale;
uniform float varianceScale;
uniform float varianceCap;
uniform int rangeFirst;
uniform int rangeEnd;
layout(location = 0) out vec4 result0;
// A fragment takes a query row and a key block.

int candidateBlocks(int queryBlock) {
  return (queryOffset + queryBlock * blockSize) / segmentSize * blocksPerSegment;
}
int competingBlocks(int head, int queryBlock) {
  return candidateBlocks(queryBlock);
}
void compute(int row, int keyBlock) {
  int queryRow = rangeFirst + row;
  int head = divide(queryRow, queryLength);
  int queryBlock = divide(queryRow - head * queryLength, blockSize);
  result0 = vec4(0.0);
  if (keyBlock >= competingBlocks(head, queryBlock)
    || readKept(head * queryBlocks + queryBlock, keyBlock / 4)[keyBlock % 4] != 0.0) {
    return;
  }
  ivec2 ownQuery = queryAt(queryRow);
  ivec2 ownDy = dyAt(queryRow);
  ivec2 summary = summariesAt(head * blocks + keyBlock);
  ivec2 values = valueMeansAt(head * blocks + keyBlock);
  float byMean = 0.0;
  float byVariance = 0.0;
  for (int v = 0; v < 16; v++) {
    vec4 q = fetchQuery(ownQuery, v, 0);
    byMean += dot(q, fetchSummaries(summary, v, 0));
    byVariance += dot(q * q, fetchSummaries(summary, v, 1));
  }
  float product = 0.0;
  for (int v = 0; v < 16; v++) {
    product += dot(fetchDy(ownDy, v, 0), fetchValueMeans(values, v, 0));
  }
  vec4 known = readStatistics(queryRow, 0);
  float correction = varianceScale * byVariance;
  int count = min(keyLength - keyBlock * blockSize, blockSize);
  float weight = exp2(logitScale * byMean + min(correction, varianceCap) + log2(float(count)) - known.x);
  float score = weight * (product - known.y);
  result0 = vec4(weight, score, correction < varianceCap ? score : 0.0, 1.0);
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
