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

uniform sampler2D source;
uniform int sourceWidth;
uniform int sourceOffset;
ivec2 sourceAt(int i) {
  int at = sourceOffset + i;
  int line = divide(at, sourceWidth);
  return ivec2(at - line * sourceWidth, line);
}
float readSource(int i) {
  return texelFetch(source, sourceAt(i), 0).r;
}
ivec2 afterSource(ivec2 at) {
  int isNext = int(at.x + 1 >= sourceWidth);
  return ivec2(at.x + 1 - isNext * sourceWidth, at.y + isNext);
}
// The first `count` of four values, and zeros.
vec4 fourSource(ivec2 at, int count) {
  ivec2 at1 = afterSource(at);
  ivec2 at2 = afterSource(at1);
  ivec2 at3 = afterSource(at2);
  vec4 four = vec4(texelFetch(source, at, 0).r, texelFetch(source, at1, 0).r, texelFetch(source, at2, 0).r, texelFetch(source, at3, 0).r);
  return mix(vec4(0.0), four, lessThan(ivec4(0, 1, 2, 3), ivec4(count)));
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
uniform int rowSize;
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
  if (readKept(head, block / 4)[block % 4] == 0.0) {
    result0 = vec4(0.0);
    return;
  }
  int inBlock = position - block * keyBlockSize;
  int key = divide(inBlock, tilesPerBlock);
  int column = (inBlock - key * tilesPerBlock) * 8 + key;
  int index = int(readKeyIndices(head * keyBlocks + block, column / 4)[column % 4]);
  result0 = fourSource(sourceAt((keyBase(head) + index) * rowSize + 4 * texel), rowSize - 4 * texel);
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
