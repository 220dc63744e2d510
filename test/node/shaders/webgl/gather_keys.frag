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
uniform int heads;
uniform int keyHeads;
uniform int keyLength;
uniform int firstHead;
uniform int blocks;
uniform int places;
uniform int tileBlocks;
uniform int tiles;
layout(location = 0) out vec4 result0;
// A fragment copies one vector of a key.

int keyBase(int head) {
  return ((head / heads) * keyHeads + (head % heads) / (heads / keyHeads)) * keyLength;
}
void compute(int row, int texel) {
  int inPlace = divide(row, tiles);
  int ofHead = divide(inPlace, tileBlocks);
  int headInRange = divide(ofHead, places);
  int block = (row - inPlace * tiles) * tileBlocks + inPlace - ofHead * tileBlocks;
  int place = ofHead - headInRange * places;
  int head = firstHead + headInRange;
  int index = block < blocks ? int(readKeyIndices(head * blocks + block, place / 4)[place % 4]) : -1;
  result0 = index < 0 ? vec4(0.0) : readKey(keyBase(head) + index, texel);
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
