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
uniform int keyLength;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int keyBlocks;
uniform int tilesPerBlock;
layout(location = 0) out vec4 result0;
// A fragment looks for its key in the blocks of its segment, where the order has left it. Indices stand in the order of
// tiles.
void compute(int row, int texel) {
  int head = divide(row, keyLength);
  int key = row - head * keyLength;
  int blocksPerSegment = segmentSize / keyBlockSize;
  int firstBlock = divide(key, segmentSize) * blocksPerSegment;
  int place = key;
  for (int block = firstBlock; block < min(firstBlock + blocksPerSegment, keyBlocks); block++) {
    ivec2 at = keyIndicesAt(head * keyBlocks + block);
    for (int t = 0; t < tilesPerBlock * 2; t++) {
      bvec4 found = equal(fetchKeyIndices(at, t, 0), vec4(key));
      if (any(found)) {
        int column = 4 * t + (found.x ? 0 : found.y ? 1 : found.z ? 2 : 3);
        place = block * keyBlockSize + (column % 8) * tilesPerBlock + column / 8;
      }
    }
  }
  result0 = vec4(place);
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
