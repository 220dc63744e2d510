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

uniform sampler2DArray shares;
uniform int sharesShift;
uniform int sharesTexels;
ivec2 sharesAt(int row) {
  return ivec2(row & ((1 << sharesShift) - 1), (row >> sharesShift) * sharesTexels);
}
vec4 fetchShares(ivec2 at, int texel, int layer) {
  return texelFetch(shares, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readShares(int row, int texel) {
  return fetchShares(sharesAt(row), texel, 0);
}

uniform sampler2DArray keyLengths;
uniform int keyLengthsShift;
uniform int keyLengthsTexels;
ivec2 keyLengthsAt(int row) {
  return ivec2(row & ((1 << keyLengthsShift) - 1), (row >> keyLengthsShift) * keyLengthsTexels);
}
vec4 fetchKeyLengths(ivec2 at, int texel, int layer) {
  return texelFetch(keyLengths, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKeyLengths(int row, int texel) {
  return fetchKeyLengths(keyLengthsAt(row), texel, 0);
}
uniform int heads;
uniform int queryLength;
uniform int keyLength;
uniform int blockSize;
uniform int keyBlockSize;
uniform int queryBlocks;
uniform int keyBlocks;
uniform int firstBlockRow;
uniform int groups;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
// A fragment takes four key blocks.

int keyEnd(int head) {
  return int(clamp(readKeyLengths(head / heads, 0).x, 0.0, float(keyLength)));
}
int candidateBlocks(int queryBlock) {
  return keyBlocks;
}
int competingKeys(int head, int queryBlock) {
  return min(candidateBlocks(queryBlock) * keyBlockSize, keyEnd(head));
}
void compute(int row, int texel) {
  int head = divide(row, queryBlocks);
  int queryBlock = row - head * queryBlocks;
  vec4 sums = vec4(0.0);
  vec4 peaks = vec4(0.0);
  if (4 * texel * keyBlockSize < competingKeys(head, queryBlock)) {
    int firstGroup = (row - firstBlockRow) * groups;
    for (int i = firstGroup; i < firstGroup + groups; i++) {
      ivec2 at = sharesAt(i);
      for (int c = 0; c < 4; c++) {
        vec4 shares = fetchShares(at, 4 * texel / 4, 4 * texel % 4 + c);
        sums[c] += dot(shares, vec4(1.0));
        peaks[c] = max(peaks[c], max(max(shares.x, shares.y), max(shares.z, shares.w)));
      }
    }
  }
  result0 = sums / float(min(blockSize, queryLength - queryBlock * blockSize));
  result1 = peaks;
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
