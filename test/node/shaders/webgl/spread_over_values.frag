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

uniform sampler2DArray gradient;
uniform int gradientShift;
uniform int gradientTexels;
ivec2 gradientAt(int row) {
  return ivec2(row & ((1 << gradientShift) - 1), (row >> gradientShift) * gradientTexels);
}
vec4 fetchGradient(ivec2 at, int texel, int layer) {
  return texelFetch(gradient, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readGradient(int row, int texel) {
  return fetchGradient(gradientAt(row), texel, 0);
}

uniform sampler2DArray sums;
uniform int sumsShift;
uniform int sumsTexels;
ivec2 sumsAt(int row) {
  return ivec2(row & ((1 << sumsShift) - 1), (row >> sumsShift) * sumsTexels);
}
vec4 fetchSums(ivec2 at, int texel, int layer) {
  return texelFetch(sums, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSums(int row, int texel) {
  return fetchSums(sumsAt(row), texel, 0);
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
uniform int heads;
uniform int keyHeads;
uniform int keyLength;
uniform int blocks;
uniform int blockSize;
uniform int tilesPerBlock;
layout(location = 0) out vec4 result0;
// A fragment takes one vector of a key's row. Indices stand in the order of tiles.

void compute(int row, int texel) {
  int head = divide(row, keyLength);
  int position = row - head * keyLength;
  int keyBlock = divide(position, blockSize);
  int inBlock = position - keyBlock * blockSize;
  int key = divide(inBlock, tilesPerBlock);
  int column = (inBlock - key * tilesPerBlock) * 8 + key;
  int block = head * blocks + keyBlock;
  int index = int(readKeyIndices(block, column / 4)[column % 4]);
  result0 = readGradient(row, texel);
  int end = keyLength;
  if (index < end) {
    float count = float(min(end - keyBlock * blockSize, blockSize));
    result0 += readSums(block, 32 + texel) / count;
  }
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
