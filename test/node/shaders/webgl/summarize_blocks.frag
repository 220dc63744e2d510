#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;

// Quotient of two whole numbers that are not negative, below 2^24: integer division takes several times as long.
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

uniform sampler2DArray keyIndices;
uniform int keyIndicesShift;
uniform int keyIndicesTexels;
ivec2 keyIndicesAt(int row) {
  return ivec2(row & ((1 << keyIndicesShift) - 1), (row >> keyIndicesShift) * keyIndicesTexels);
}
vec4 fetchKeyIndices(ivec2 at, int texel, int layer) {
  return texelFetch(keyIndices, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKeyIndices(int row, int texel) {
  return fetchKeyIndices(keyIndicesAt(row), texel, 0);
}
uniform int heads;
uniform int keyHeads;
uniform int keyLength;
uniform int blocks;
uniform int blockSize;
uniform int indexTexels;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
// A fragment adds up one vector of a block's rows, and then its squared distances from the mean.

int keyBase(int head) {
  return ((head / heads) * keyHeads + (head % heads) / (heads / keyHeads)) * keyLength;
}
void compute(int row, int texel) {
  int head = row / blocks;
  int firstSource = keyBase(head);
  int end = keyLength;
  // Padding stands last in its segment, so the keys that are none are the first of the order, too.
  float count = float(clamp(end - (row % blocks) * blockSize, 1, blockSize));
  vec4 mean = vec4(0.0);
  for (int i = 0; i < indexTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(row, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0) {
        mean += readSource(firstSource + keys[c], texel);
      }
    }
  }
  mean /= count;
  result0 = mean;
  vec4 variance = vec4(0.0);
  for (int i = 0; i < indexTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(row, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0) {
        vec4 x = readSource(firstSource + keys[c], texel) - mean;
        variance += x * x;
      }
    }
  }
  result1 = variance / count;
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
