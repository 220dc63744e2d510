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

uniform sampler2DArray logits;
uniform int logitsShift;
uniform int logitsTexels;
ivec2 logitsAt(int row) {
  return ivec2(row & ((1 << logitsShift) - 1), (row >> logitsShift) * logitsTexels);
}
vec4 fetchLogits(ivec2 at, int texel, int layer) {
  return texelFetch(logits, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readLogits(int row, int texel) {
  return fetchLogits(logitsAt(row), texel, 0);
}

layout(location = 0) out vec4 result0;
// A fragment walks twice over its row. Masked logits weigh 0; in a row of them alone nobody asks for the sum. What a row has
// beyond its columns is masked as well.
vec4 logOfSums(vec4 sums) {
  uvec4 bits = floatBitsToUint(sums);
  bvec4 notFinite = equal(bits & uvec4(0x7f800000u), uvec4(0x7f800000u));
  return mix(log2(sums), uintBitsToFloat(bits | uvec4(0x7fc00000u)), notFinite);
}
void compute(int row, int texel) {
  ivec2 at = logitsAt(row);
  vec4 maxima = vec4(-1e29);
  for (int t = 0; t < logitsTexels; t++) {
    maxima = max(maxima, fetchLogits(at, t, 0));
  }
  float rowMax = max(max(maxima.x, maxima.y), max(maxima.z, maxima.w));
  vec4 sums = vec4(0.0);
  for (int t = 0; t < logitsTexels; t++) {
    sums += exp2(fetchLogits(at, t, 0) - rowMax);
  }
  result0 = rowMax + logOfSums(vec4(dot(sums, vec4(1.0))));
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
