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
// The first `count` of four values from value i on, and zeros.
vec4 readFourSource(int i, int count) {
  ivec2 at = sourceAt(i);
  vec4 four = vec4(0.0);
  if (count > 0) { four[0] = texelFetch(source, at, 0).r; }
  at = at.x + 1 < sourceWidth ? at + ivec2(1, 0) : ivec2(0, at.y + 1);
  if (count > 1) { four[1] = texelFetch(source, at, 0).r; }
  at = at.x + 1 < sourceWidth ? at + ivec2(1, 0) : ivec2(0, at.y + 1);
  if (count > 2) { four[2] = texelFetch(source, at, 0).r; }
  at = at.x + 1 < sourceWidth ? at + ivec2(1, 0) : ivec2(0, at.y + 1);
  if (count > 3) { four[3] = texelFetch(source, at, 0).r; }
  return four;
}
uniform int inner;
uniform float filler;
layout(location = 0) out vec4 result0;
// A fragment copies the four values of its texel.
void compute(int row, int texel) {
  result0 = readFourSource(row * inner + 4 * texel, inner - 4 * texel);
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
