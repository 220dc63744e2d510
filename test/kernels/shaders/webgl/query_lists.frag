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

uniform sampler2DArray blockMask;
uniform int blockMaskShift;
uniform int blockMaskTexels;
ivec2 blockMaskAt(int row) {
  return ivec2(row & ((1 << blockMaskShift) - 1), (row >> blockMaskShift) * blockMaskTexels);
}
vec4 fetchBlockMask(ivec2 at, int texel, int layer) {
  return texelFetch(blockMask, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readBlockMask(int row, int texel) {
  return fetchBlockMask(blockMaskAt(row), texel, 0);
}
uniform int queryBlocks;
uniform int keyBlocks;
layout(location = 0) out vec4 result0;
// A fragment goes down the column of a key block in the mask and keeps the four entries of its texel.
void compute(int row, int texel) {
  int head = divide(row, keyBlocks);
  int keyBlock = row - head * keyBlocks;
  ivec4 entries = ivec4(0, 1, 2, 3) + 4 * texel;
  vec4 four = vec4(0.0);
  int count = 0;
  for (int queryBlock = 0; queryBlock < queryBlocks; queryBlock++) {
    if (readBlockMask(head * queryBlocks + queryBlock, keyBlock / 4)[keyBlock % 4] > 0.0) {
      count++;
      four = mix(four, vec4(queryBlock), equal(entries, ivec4(count)));
    }
  }
  if (texel == 0) {
    four.x = float(count);
  }
  result0 = four;
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
