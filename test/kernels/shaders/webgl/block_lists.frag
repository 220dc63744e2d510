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

uniform sampler2DArray kept;
uniform int keptShift;
uniform int keptTexels;
ivec2 keptAt(int row) {
  return ivec2(row & ((1 << keptShift) - 1), (row >> keptShift) * keptTexels);
}
vec4 fetchKept(ivec2 at, int texel, int layer) {
  return texelFetch(kept, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKept(int row, int texel) {
  return fetchKept(keptAt(row), texel, 0);
}
uniform int queryBlocks;
uniform int keyBlocks;
layout(location = 0) out vec4 result0;
// A fragment finds four entries of a list, by counting through the row.
int visibleBlocks(int queryBlock) {
  return keyBlocks;
}
void compute(int row, int texel) {
  ivec2 at = keptAt(row);
  ivec4 places = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 entries = ivec4(0);
  int count = 0;
  int visible = visibleBlocks(row % queryBlocks);
  for (int t = 0; 4 * t < visible; t++) {
    vec4 kept = fetchKept(at, t, 0);
    for (int c = 0; c < 4; c++) {
      if (kept[c] != 0.0 && 4 * t + c < visible) {
        ++count;
        entries += ivec4(equal(places, ivec4(count))) * (4 * t + c);
      }
    }
  }
  if (texel == 0) {
    entries.x = count;
  }
  result0 = vec4(entries);
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
