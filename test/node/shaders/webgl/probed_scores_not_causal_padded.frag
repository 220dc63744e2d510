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

uniform sampler2DArray summaryScores;
uniform int summaryScoresShift;
uniform int summaryScoresTexels;
ivec2 summaryScoresAt(int row) {
  return ivec2(row & ((1 << summaryScoresShift) - 1), (row >> summaryScoresShift) * summaryScoresTexels);
}
vec4 fetchSummaryScores(ivec2 at, int texel, int layer) {
  return texelFetch(summaryScores, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSummaryScores(int row, int texel) {
  return fetchSummaryScores(summaryScoresAt(row), texel, 0);
}

uniform sampler2DArray summarySums;
uniform int summarySumsShift;
uniform int summarySumsTexels;
ivec2 summarySumsAt(int row) {
  return ivec2(row & ((1 << summarySumsShift) - 1), (row >> summarySumsShift) * summarySumsTexels);
}
vec4 fetchSummarySums(ivec2 at, int texel, int layer) {
  return texelFetch(summarySums, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSummarySums(int row, int texel) {
  return fetchSummarySums(summarySumsAt(row), texel, 0);
}

uniform sampler2DArray probeScores;
uniform int probeScoresShift;
uniform int probeScoresTexels;
ivec2 probeScoresAt(int row) {
  return ivec2(row & ((1 << probeScoresShift) - 1), (row >> probeScoresShift) * probeScoresTexels);
}
vec4 fetchProbeScores(ivec2 at, int texel, int layer) {
  return texelFetch(probeScores, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readProbeScores(int row, int texel) {
  return fetchProbeScores(probeScoresAt(row), texel, 0);
}

uniform sampler2DArray probeSums;
uniform int probeSumsShift;
uniform int probeSumsTexels;
ivec2 probeSumsAt(int row) {
  return ivec2(row & ((1 << probeSumsShift) - 1), (row >> probeSumsShift) * probeSumsTexels);
}
vec4 fetchProbeSums(ivec2 at, int texel, int layer) {
  return texelFetch(probeSums, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readProbeSums(int row, int texel) {
  return fetchProbeSums(probeSumsAt(row), texel, 0);
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
uniform int keyHeads;
uniform int keyLength;
uniform int blocks;
uniform int queryBlocks;
uniform int blockSize;
uniform int queryLength;
uniform int firstBlockRow;
uniform int groups;
layout(location = 0) out vec4 result0;
// A fragment takes four key blocks: the mean of what the rows that stand for the query block pay to them and the most that a probe row pays.

int keyEnd(int head) {
  return int(clamp(readKeyLengths(head / heads, 0).x, 0.0, float(keyLength)));
}
int candidateBlocks(int queryBlock) {
  return blocks;
}
int competingBlocks(int head, int queryBlock) {
  return min(candidateBlocks(queryBlock), (keyEnd(head) + blockSize - 1) / blockSize);
}
vec4 meanShares(int firstGroup, int tile, int firstLayer) {
  vec4 mean = vec4(0.0);
  for (int i = firstGroup; i < firstGroup + 4; i++) {
    ivec2 at = summaryScoresAt(i);
    vec4 logSums = readSummarySums(i, 0);
    for (int c = 0; c < 4; c++) {
      vec4 shares = exp2(fetchSummaryScores(at, tile, firstLayer + c) - logSums);
      mean[c] += dot(shares, vec4(0.0625));
    }
  }
  return mean;
}
vec4 peakShares(int firstGroup, int tile, int firstLayer) {
  vec4 peak = vec4(0.0);
  for (int i = firstGroup; i < firstGroup + groups; i++) {
    ivec2 at = probeScoresAt(i);
    vec4 logSums = readProbeSums(i, 0);
    for (int c = 0; c < 4; c++) {
      vec4 shares = exp2(fetchProbeScores(at, tile, firstLayer + c) - logSums);
      peak[c] = max(peak[c], max(max(shares.x, shares.y), max(shares.z, shares.w)));
    }
  }
  return peak;
}
void compute(int row, int texel) {
  int head = row / queryBlocks;
  int competing = competingBlocks(head, row % queryBlocks);
  if (4 * texel >= competing) {
    result0 = vec4(0.0);
    return;
  }
  int tile = 4 * texel / 8;
  int firstLayer = 4 * texel % 8;
  vec4 mean = meanShares((row - firstBlockRow) * 4, tile, firstLayer);
  vec4 peak = peakShares((row - firstBlockRow) * groups, tile, firstLayer);
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(competing));
  result0 = mix(vec4(0.0), (mean + 0.1 * peak) / 1.1, competes);
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
