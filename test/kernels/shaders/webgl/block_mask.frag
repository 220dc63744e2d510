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
// A fragment looks for four blocks in the list.
void compute(int row, int texel) {
  ivec2 at = blockListsAt(row);
  int count = int(fetchBlockLists(at, 0, 0).x);
  ivec4 blocks = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 found = ivec4(0);
  // Entry 0 is the number of entries that follow.
  for (int entry = 1; entry <= count; entry++) {
    found += ivec4(equal(blocks, ivec4(int(fetchBlockLists(at, entry / 4, 0)[entry % 4]))));
  }
  result0 = vec4(found);
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
