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

uniform sampler2DArray scores;
uniform int scoresShift;
uniform int scoresTexels;
ivec2 scoresAt(int row) {
  return ivec2(row & ((1 << scoresShift) - 1), (row >> scoresShift) * scoresTexels);
}
vec4 fetchScores(ivec2 at, int texel, int layer) {
  return texelFetch(scores, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readScores(int row, int texel) {
  return fetchScores(scoresAt(row), texel, 0);
}

uniform sampler2DArray products;
uniform int productsShift;
uniform int productsTexels;
ivec2 productsAt(int row) {
  return ivec2(row & ((1 << productsShift) - 1), (row >> productsShift) * productsTexels);
}
vec4 fetchProducts(ivec2 at, int texel, int layer) {
  return texelFetch(products, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readProducts(int row, int texel) {
  return fetchProducts(productsAt(row), texel, 0);
}

uniform sampler2DArray statistics;
uniform int statisticsShift;
uniform int statisticsTexels;
ivec2 statisticsAt(int row) {
  return ivec2(row & ((1 << statisticsShift) - 1), (row >> statisticsShift) * statisticsTexels);
}
vec4 fetchStatistics(ivec2 at, int texel, int layer) {
  return texelFetch(statistics, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readStatistics(int row, int texel) {
  return fetchStatistics(statisticsAt(row), texel, 0);
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
uniform int keyLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int keyBlocks;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int tilesPerBlock;
uniform int slotsPerRound;
uniform int firstSlot;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
layout(location = 4) out vec4 result4;
layout(location = 5) out vec4 result5;
layout(location = 6) out vec4 result6;
layout(location = 7) out vec4 result7;
// A fragment adds up 2 vectors of the queries' rows, weighted for each of a group's four keys.

struct Group {
  int head;
  int block;
  ivec4 keys;
};
Group groupAt(int group) {
  int blockOfHead = divide(group, groupsPerBlock);
  int block = divide(blockOfHead, walkHeads);
  int inBlock = group - blockOfHead * groupsPerBlock;
  ivec4 keys = ivec4(0, 1, 2, 3) * groupsPerBlock + block * blockSize + inBlock;
  return Group(firstHead + blockOfHead - block * walkHeads, block, keys);
}
int firstQueryBlock(Group group) {
  return min(divide(max(group.block * blockSize - queryOffset, 0), keyBlockSize), keyBlocks);
}
int slotCount(Group group) {
  return keyBlocks - firstQueryBlock(group);
}
int blockOf(Group group, int slot) {
  return firstQueryBlock(group) + firstSlot + slot;
}
int slotsOfRound(Group group) {
  return clamp(slotCount(group) - firstSlot, 0, slotsPerRound);
}
ivec4 positionsIn(int block, int tile, int four) {
  return block * keyBlockSize + tile + (ivec4(0, 1, 2, 3) + 4 * four) * tilesPerBlock;
}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  vec4 sum0 = vec4(0.0);
  vec4 sum1 = vec4(0.0);
  vec4 sum2 = vec4(0.0);
  vec4 sum3 = vec4(0.0);
  vec4 sum4 = vec4(0.0);
  vec4 sum5 = vec4(0.0);
  vec4 sum6 = vec4(0.0);
  vec4 sum7 = vec4(0.0);
  ivec2 at = scoresAt(row);
  int slots = slotsOfRound(group);
  int firstOfHead = group.head * keyLength;
  int lastOfHead = keyLength - 1;
  for (int slot = 0; slot < slots; slot += 1) {
    int block = blockOf(group, slot);
    int tile = slot * tilesPerBlock;
    for (int t = 0; t < tilesPerBlock; t++, tile++) {
      ivec4 rows0 = firstOfHead + min(positionsIn(block, t, 0), lastOfHead);
      ivec4 rows1 = firstOfHead + min(positionsIn(block, t, 1), lastOfHead);
      {
        int i = rows0[0];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 0);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 0) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
      {
        int i = rows0[1];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 1);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 1) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
      {
        int i = rows0[2];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 2);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 2) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
      {
        int i = rows0[3];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 3);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 3) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
      {
        int i = rows1[0];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 4);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 4) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
      {
        int i = rows1[1];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 5);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 5) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
      {
        int i = rows1[2];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 6);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 6) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
      {
        int i = rows1[3];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 scores = fetchScores(at, tile, 7);
        vec4 shares = mix(exp2(scores - known.x), vec4(0.0), equal(scores, vec4(-1e30)));
        bvec4 unseen = equal(shares, vec4(0.0));
        vec4 weights = shares * (fetchProducts(at, tile, 7) - known.y);
        vec4 x0 = fetchRows(rowAt, 2 * texel + 0, 0);
        vec4 x1 = fetchRows(rowAt, 2 * texel + 1, 0);
        if (any(unseen)) {
          if (!unseen[0]) { sum0 += weights[0] * x0; sum1 += weights[0] * x1; }
          if (!unseen[1]) { sum2 += weights[1] * x0; sum3 += weights[1] * x1; }
          if (!unseen[2]) { sum4 += weights[2] * x0; sum5 += weights[2] * x1; }
          if (!unseen[3]) { sum6 += weights[3] * x0; sum7 += weights[3] * x1; }
        } else {
          sum0 += weights[0] * x0; sum1 += weights[0] * x1;
          sum2 += weights[1] * x0; sum3 += weights[1] * x1;
          sum4 += weights[2] * x0; sum5 += weights[2] * x1;
          sum6 += weights[3] * x0; sum7 += weights[3] * x1;
        }
      }
    }
  }
  result0 = sum0;
  result1 = sum1;
  result2 = sum2;
  result3 = sum3;
  result4 = sum4;
  result5 = sum5;
  result6 = sum6;
  result7 = sum7;
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
