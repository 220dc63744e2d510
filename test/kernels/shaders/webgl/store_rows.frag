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
uniform int inner;
uniform int piece;
uniform int pieces;
uniform int tiles;
uniform int tileValues;
layout(location = 0) out vec4 result0;
// A fragment writes one value of the tensor.
void compute(int index) {
  int inRun = index % inner;
  int place = inRun % piece;
  int column = (place % tiles) * tileValues + place / tiles;
  vec4 four = readSource((index / inner) * pieces + inRun / piece, column / 4);
  result0 = vec4(four[column % 4], 0.0, 0.0, 0.0);
}

uniform int outWidth;
uniform int outSize;
void main() {
  int index = int(gl_FragCoord.y) * outWidth + int(gl_FragCoord.x);
  if (index >= outSize) {
    discard;
  }
  compute(index);
}
