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

uniform sampler2DArray source;
uniform int sourceShift;
uniform int sourceTexels;
ivec2 sourceAt(int row) {
  return ivec2(row & ((1 << sourceShift) - 1), (row >> sourceShift) * sourceTexels);
}
vec4 fetchSource(ivec2 at, int texel, int layer) {
  return texelFetch(source, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSource(int row, int texel) {
  return fetchSource(sourceAt(row), texel, 0);
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
uniform int keyValueHeads;
uniform int keyLength;
uniform int keyBlockSize;
uniform int keyBlocks;
uniform int firstHead;
uniform int tilesPerBlock;
layout(location = 0) out vec4 result0;
// A fragment copies one vector of the row that belongs to its position. Indices stand in the order of tiles.

int keyBase(int head) {
  return ((head / heads) * keyValueHeads + (head % heads) / (heads / keyValueHeads)) * keyLength;
}
void compute(int row, int texel) {
  int headInRange = divide(row, keyLength);
  int head = firstHead + headInRange;
  int position = row - headInRange * keyLength;
  int block = divide(position, keyBlockSize);
  int inBlock = position - block * keyBlockSize;
  int key = divide(inBlock, tilesPerBlock);
  int column = (inBlock - key * tilesPerBlock) * 8 + key;
  int index = int(readKeyIndices(head * keyBlocks + block, column / 4)[column % 4]);
  result0 = readSource(keyBase(head) + index, texel);
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
