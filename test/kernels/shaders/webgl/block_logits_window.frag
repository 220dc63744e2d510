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

uniform sampler2DArray pooled;
uniform int pooledShift;
uniform int pooledTexels;
ivec2 pooledAt(int row) {
  return ivec2(row & ((1 << pooledShift) - 1), (row >> pooledShift) * pooledTexels);
}
vec4 fetchPooled(ivec2 at, int texel, int layer) {
  return texelFetch(pooled, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readPooled(int row, int texel) {
  return fetchPooled(pooledAt(row), texel, 0);
}
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int queryBlocks;
uniform int keyBlocks;
uniform int window;
uniform int pooledBlocks;
uniform float logitScale;
layout(location = 0) out vec4 result0;
// A fragment multiplies one mean query with four mean keys.

int firstVisibleBlock(int queryBlock) {
  int firstKey = max(0, queryOffset + queryBlock * blockSize - window + 1);
  return min(firstKey / segmentSize * segmentSize / keyBlockSize, keyBlocks);
}
int candidateBlocks(int queryBlock) {
  return (queryOffset + queryBlock * blockSize) / segmentSize * segmentSize / keyBlockSize;
}
int competingBlocks(int head, int queryBlock) {
  return candidateBlocks(queryBlock);
}
void compute(int row, int texel) {
  int head = row / queryBlocks;
  int queryBlock = row % queryBlocks;
  int competing = competingBlocks(head, queryBlock);
  int firstBlock = 4 * texel;
  if (firstBlock >= competing) {
    result0 = vec4(-1e30);
    return;
  }
  ivec2 query = pooledAt(head * pooledBlocks + queryBlock);
  int firstKeyRow = head * pooledBlocks + firstBlock;
  ivec2 key0 = pooledAt(firstKeyRow + 0);
  ivec2 key1 = pooledAt(firstKeyRow + 1);
  ivec2 key2 = pooledAt(firstKeyRow + 2);
  ivec2 key3 = pooledAt(firstKeyRow + 3);
  vec4 products = vec4(0.0);
  for (int v = 0; v < 16; v++) {
    vec4 q = fetchPooled(query, v, 0);
    products += vec4(
      dot(q, fetchPooled(key0, v, 1)),
      dot(q, fetchPooled(key1, v, 1)),
      dot(q, fetchPooled(key2, v, 1)),
      dot(q, fetchPooled(key3, v, 1))
    );
  }
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + firstBlock, ivec4(competing));
  result0 = mix(vec4(-1e30), logitScale * products, competes);
  result0 = mix(result0, vec4(-1e30), lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(firstVisibleBlock(row % queryBlocks))));
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
