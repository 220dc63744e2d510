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

uniform sampler2DArray rows;
uniform int rowsShift;
uniform int rowsTexels;
ivec2 rowsAt(int row) {
  return ivec2(row & ((1 << rowsShift) - 1), (row >> rowsShift) * rowsTexels);
}
vec4 fetchRows(ivec2 at, int texel, int layer) {
  return texelFetch(rows, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readRows(int row, int texel) {
  return fetchRows(rowsAt(row), texel, 0);
}

uniform sampler2DArray places;
uniform int placesShift;
uniform int placesTexels;
ivec2 placesAt(int row) {
  return ivec2(row & ((1 << placesShift) - 1), (row >> placesShift) * placesTexels);
}
vec4 fetchPlaces(ivec2 at, int texel, int layer) {
  return texelFetch(places, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readPlaces(int row, int texel) {
  return fetchPlaces(placesAt(row), texel, 0);
}
uniform int heads;
uniform int keyValueHeads;
uniform int keyLength;
uniform int dim;
layout(location = 0) out vec4 result0;
// A fragment adds up one value over the heads that share it.
void compute(int index) {
  int row = index / dim;
  int column = index % dim;
  int sharing = heads / keyValueHeads;
  int firstRow = (row / keyLength) * sharing * keyLength;
  int key = row % keyLength;
  float sum = 0.0;
  for (int i = 0; i < sharing; i++) {
    int first = firstRow + i * keyLength;
    int place = int(readPlaces(first + key, 0).x);
    sum += readRows(first + place, column / 4)[column % 4];
  }
  result0 = vec4(sum, 0.0, 0.0, 0.0);
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
