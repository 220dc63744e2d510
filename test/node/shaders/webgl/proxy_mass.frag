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

uniform sampler2DArray keyScores;
uniform int keyScoresShift;
uniform int keyScoresTexels;
ivec2 keyScoresAt(int row) {
  return ivec2(row & ((1 << keyScoresShift) - 1), (row >> keyScoresShift) * keyScoresTexels);
}
vec4 fetchKeyScores(ivec2 at, int texel, int layer) {
  return texelFetch(keyScores, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKeyScores(int row, int texel) {
  return fetchKeyScores(keyScoresAt(row), texel, 0);
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
uniform int blocks;
uniform int segmentSize;
uniform int indexTexels;
uniform int permutedLength;
layout(location = 0) out vec4 result0;
// A fragment adds up the scores of the keys of four blocks.
float massOf(int head, int block) {
  float sum = 0.0;
  for (int i = 0; i < indexTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(head * blocks + block, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0) {
        int segment = head * (permutedLength / segmentSize) + keys[c] / segmentSize;
        int place = keys[c] % segmentSize;
        sum += readKeyScores(segment, place / 4)[place % 4];
      }
    }
  }
  return sum;
}
void compute(int head, int texel) {
  vec4 mass = vec4(0.0);
  for (int c = 0; c < 4; c++) {
    int block = 4 * texel + c;
    if ((block + 1) * blockSize <= permutedLength) {
      mass[c] = massOf(head, block);
    }
  }
  result0 = mass;
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
