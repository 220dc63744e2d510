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

uniform sampler2DArray mass;
uniform int massShift;
uniform int massTexels;
ivec2 massAt(int row) {
  return ivec2(row & ((1 << massShift) - 1), (row >> massShift) * massTexels);
}
vec4 fetchMass(ivec2 at, int texel, int layer) {
  return texelFetch(mass, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readMass(int row, int texel) {
  return fetchMass(massAt(row), texel, 0);
}

layout(location = 0) out vec4 result0;
// A fragment adds up the parts of four scores.
void compute(int row, int texel) {
  ivec2 at = massAt(row);
  result0 = fetchMass(at, texel, 0) + 0.1 * fetchMass(at, texel, 1);
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
