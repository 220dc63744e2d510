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
uniform int inner;
uniform float filler;
layout(location = 0) out vec4 result0;
// A fragment copies the four values of its texel.
void compute(int row, int texel) {
  result0 = fourSource(sourceAt(row * inner + 4 * texel), inner - 4 * texel);
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
