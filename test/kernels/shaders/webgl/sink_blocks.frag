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
uniform int keyBlockSize;
uniform int segmentSize;
uniform int keyBlocks;
layout(location = 0) out vec4 result0;
// A fragment looks through the first segment, which key 0 does not leave.
void compute(int head, int texel) {
  int sink = 0;
  for (int block = 0; block * keyBlockSize < segmentSize; block++) {
    for (int i = 0; i < keyIndicesTexels; i++) {
      if (any(equal(readKeyIndices(head * keyBlocks + block, i), vec4(0.0)))) {
        sink = block;
      }
    }
  }
  result0 = vec4(sink);
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
