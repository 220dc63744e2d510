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

uniform sampler2DArray ranks;
uniform int ranksShift;
uniform int ranksTexels;
ivec2 ranksAt(int row) {
  return ivec2(row & ((1 << ranksShift) - 1), (row >> ranksShift) * ranksTexels);
}
vec4 fetchRanks(ivec2 at, int texel, int layer) {
  return texelFetch(ranks, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readRanks(int row, int texel) {
  return fetchRanks(ranksAt(row), texel, 0);
}
uniform int keyLength;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int keyBlocks;
uniform int permutedLength;
uniform int tiles;
layout(location = 0) out vec4 result0;
// A fragment finds the keys for four positions of a tile, by looking for their ranks in the segment.
void compute(int row, int texel) {
  int tile = 4 * texel / 8;
  ivec4 places = tile + (ivec4(0, 1, 2, 3) + 4 * texel % 8) * tiles;
  int firstOfBlock = (row % keyBlocks) * keyBlockSize;
  ivec4 keys = firstOfBlock + places;
  if (firstOfBlock < permutedLength) {
    int segment = firstOfBlock / segmentSize;
    int firstOfSegment = segment * segmentSize;
    ivec4 wanted = keys - firstOfSegment;
    ivec2 at = ranksAt((row / keyBlocks) * (permutedLength / segmentSize) + segment);
    for (int t = 0; 4 * t < segmentSize; t++) {
      ivec4 ranks = ivec4(fetchRanks(at, t, 0));
      for (int c = 0; c < 4 && 4 * t + c < segmentSize; c++) {
        keys = ivec4(mix(vec4(keys), vec4(firstOfSegment + 4 * t + c), equal(ivec4(ranks[c]), wanted)));
      }
    }
  }
  // Nothing stands in the filling of a row, and past the last key.
  ivec4 end = ivec4(min(keyBlockSize, keyLength - firstOfBlock));
  result0 = mix(vec4(-1.0), vec4(keys), lessThan(places, end));
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
