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

uniform sampler2DArray masses;
uniform int massesShift;
uniform int massesTexels;
ivec2 massesAt(int row) {
  return ivec2(row & ((1 << massesShift) - 1), (row >> massesShift) * massesTexels);
}
vec4 fetchMasses(ivec2 at, int texel, int layer) {
  return texelFetch(masses, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readMasses(int row, int texel) {
  return fetchMasses(massesAt(row), texel, 0);
}

uniform sampler2DArray blockLists;
uniform int blockListsShift;
uniform int blockListsTexels;
ivec2 blockListsAt(int row) {
  return ivec2(row & ((1 << blockListsShift) - 1), (row >> blockListsShift) * blockListsTexels);
}
vec4 fetchBlockLists(ivec2 at, int texel, int layer) {
  return texelFetch(blockLists, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readBlockLists(int row, int texel) {
  return fetchBlockLists(blockListsAt(row), texel, 0);
}

layout(location = 0) out vec4 result0;
// A fragment adds up the masses of one query block, once of all key blocks and once of those in its list. What a row has
// beyond its columns is 0.
void compute(int row, int texel) {
  ivec2 at = massesAt(row);
  vec4 sums = vec4(0.0);
  for (int t = 0; t < massesTexels; t++) {
    sums += fetchMasses(at, t, 0);
  }
  float total = dot(sums, vec4(1.0));
  ivec2 list = blockListsAt(row);
  int count = int(fetchBlockLists(list, 0, 0).x);
  float kept = 0.0;
  for (int entry = 1; entry <= count; entry++) {
    int block = int(fetchBlockLists(list, entry / 4, 0)[entry % 4]);
    kept += fetchMasses(at, block / 4, 0)[block % 4];
  }
  result0 = vec4(total > 0.0 ? kept / total : 1.0);
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
