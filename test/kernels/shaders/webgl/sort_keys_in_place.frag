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

uniform int keyLength;
uniform int keyBlockSize;
uniform int keyBlocks;
uniform int tiles;
layout(location = 0) out vec4 result0;
// A fragment finds the keys for four positions of a tile.
void compute(int row, int texel) {
  int tile = 4 * texel / 8;
  ivec4 places = tile + (ivec4(0, 1, 2, 3) + 4 * texel % 8) * tiles;
  int firstOfBlock = (row % keyBlocks) * keyBlockSize;
  ivec4 keys = firstOfBlock + places;
  
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
