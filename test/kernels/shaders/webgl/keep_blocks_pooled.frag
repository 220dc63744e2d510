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

uniform sampler2DArray sinkBlocks;
uniform int sinkBlocksShift;
uniform int sinkBlocksTexels;
ivec2 sinkBlocksAt(int row) {
  return ivec2(row & ((1 << sinkBlocksShift) - 1), (row >> sinkBlocksShift) * sinkBlocksTexels);
}
vec4 fetchSinkBlocks(ivec2 at, int texel, int layer) {
  return texelFetch(sinkBlocks, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSinkBlocks(int row, int texel) {
  return fetchSinkBlocks(sinkBlocksAt(row), texel, 0);
}
uniform int queryLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int queryBlocks;
uniform int keyBlocks;
uniform float threshold;
layout(location = 0) out vec4 result0;
// A fragment decides on four key blocks of one query block.
//
// A key block belongs to the shortest prefix that reaches the threshold if the blocks before it, in descending order of
// score, do not reach it yet. So nothing is sorted: the fragment adds up the scores that come before its own blocks, equal
// scores by index.

int candidateBlocks(int queryBlock) {
  return (queryOffset + queryBlock * blockSize) / segmentSize * segmentSize / keyBlockSize;
}
int visibleBlocks(int queryBlock) {
  int lastRow = min((queryBlock + 1) * blockSize, queryLength) - 1;
  return min(((queryOffset + lastRow) / segmentSize + 1) * segmentSize / keyBlockSize, keyBlocks);
}
void compute(int row, int texel) {
  int queryBlock = row % queryBlocks;
  int candidates = candidateBlocks(queryBlock);
  int visible = visibleBlocks(queryBlock);
  ivec2 at = scoresAt(row);
  ivec4 ownBlocks = ivec4(0, 1, 2, 3) + 4 * texel;
  vec4 own = fetchScores(at, texel, 0);
  vec4 before = vec4(0.0);
  for (int t = 0; 4 * t < candidates && 4 * texel < candidates; t++) {
    vec4 others = fetchScores(at, t, 0);
    for (int c = 0; c < 4 && 4 * t + c < candidates; c++) {
      vec4 other = vec4(others[c]);
      vec4 ties = vec4(equal(other, own)) * vec4(lessThan(ivec4(4 * t + c), ownBlocks));
      bvec4 precedes = greaterThan(vec4(greaterThan(other, own)) + ties, vec4(0.0));
      before = mix(before, before + other, precedes);
    }
  }
  int sink = int(readSinkBlocks(row / queryBlocks, 0).x);
  vec4 kept = vec4(0.0);
  for (int c = 0; c < 4; c++) {
    int block = ownBlocks[c];
    // Written so that a NaN keeps the block.
    bool scored = block < candidates && !(before[c] >= threshold);
    kept[c] = float(block < visible && (scored || block == sink || block >= candidates));
  }
  result0 = kept;
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
