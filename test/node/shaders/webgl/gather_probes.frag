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
uniform int groupCount;
layout(location = 0) out vec4 result0;
// A fragment copies one vector of a probe row.
void compute(int copy, int texel) {
  int place = divide(copy, groupCount);
  int row = copy - place * groupCount;
  int blockRow = firstBlockRow + divide(row, groups);
  int group = row - (blockRow - firstBlockRow) * groups;
  int head = blockRow / queryBlocks;
  int queryBlock = blockRow % queryBlocks;
  int probe = queryBlock * blockSize + int(readProbes(blockRow, group)[place]);
  result0 = readQuery(head * queryLength + min(probe, queryLength - 1), texel);
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
