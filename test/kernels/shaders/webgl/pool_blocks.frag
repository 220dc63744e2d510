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
uniform int keyValueHeads;
uniform int queryLength;
uniform int keyLength;
uniform int blockSize;
uniform int keyBlockSize;
uniform int keyBlocks;
uniform int pooledBlocks;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
// A fragment adds up one vector of a block's queries and keys, as far as there are such blocks. A partial block is still
// divided by the block size.

int keyBase(int head) {
  return ((head / heads) * keyValueHeads + (head % heads) / (heads / keyValueHeads)) * keyLength;
}
void compute(int row, int texel) {
  int head = row / pooledBlocks;
  int block = row % pooledBlocks;
  int firstPosition = block * blockSize;
  vec4 querySum = vec4(0.0);
  for (int i = 0; i < min(blockSize, queryLength - firstPosition); i++) {
    querySum += readQuery(head * queryLength + firstPosition + i, texel);
  }
  int firstKey = keyBase(head);
  vec4 keySum = vec4(0.0);
  for (int i = 0; block < keyBlocks && i < keyIndicesTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(head * keyBlocks + block, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0) {
        keySum += readKey(firstKey + keys[c], texel);
      }
    }
  }
  result0 = querySum / float(blockSize);
  result1 = keySum / float(keyBlockSize);
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
