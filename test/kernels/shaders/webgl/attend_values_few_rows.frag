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

uniform sampler2D rows;
uniform int rowsWidth;
uniform int rowsOffset;
ivec2 rowsAt(int i) {
  int at = rowsOffset + i;
  int line = divide(at, rowsWidth);
  return ivec2(at - line * rowsWidth, line);
}
float readRows(int i) {
  return texelFetch(rows, rowsAt(i), 0).r;
}
ivec2 afterRows(ivec2 at) {
  int isNext = int(at.x + 1 >= rowsWidth);
  return ivec2(at.x + 1 - isNext * rowsWidth, at.y + isNext);
}
// The first `count` of four values, and zeros.
vec4 fourRows(ivec2 at, int count) {
  ivec2 at1 = afterRows(at);
  ivec2 at2 = afterRows(at1);
  ivec2 at3 = afterRows(at2);
  vec4 four = vec4(texelFetch(rows, at, 0).r, texelFetch(rows, at1, 0).r, texelFetch(rows, at2, 0).r, texelFetch(rows, at3, 0).r);
  return mix(vec4(0.0), four, lessThan(ivec4(0, 1, 2, 3), ivec4(count)));
}
ivec2 afterFourRows(ivec2 at) {
  return afterRows(afterRows(afterRows(afterRows(at))));
}
uniform int heads;
uniform int keyValueHeads;
uniform int keyLength;
uniform int queryOffset;
uniform int valueDim;
uniform int blockSize;
uniform int keyBlockSize;
uniform int rowsOfHead;
uniform int firstHead;
uniform int walkHeads;
uniform int firstGroup;
uniform int groupsPerBlock;
uniform int tilesPerBlock;
uniform int slotsPerRound;
uniform int parts;
uniform int firstSlot;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
layout(location = 2) out vec4 result2;
layout(location = 3) out vec4 result3;
layout(location = 4) out vec4 result4;
layout(location = 5) out vec4 result5;
layout(location = 6) out vec4 result6;
layout(location = 7) out vec4 result7;
// A fragment adds up 2 vectors of the values, weighted for each of a group's four rows: 9 fetches a key for
// 8 products of vectors.
// The first round leaves every group with sums, those of no key where it has no slot.

struct Group {
  int head;
  int block;
  ivec4 queries;
};
Group groupAt(int group) {
  int blockOfHead = divide(group, groupsPerBlock);
  int block = divide(blockOfHead, walkHeads);
  int inBlock = group - blockOfHead * groupsPerBlock;
  ivec4 queries = ivec4(0, 1, 2, 3) * groupsPerBlock + block * blockSize + inBlock;
  return Group(firstHead + blockOfHead - block * walkHeads, block, queries);
}
int slotCount(Group group) {
  return divide(queryOffset + rowsOfHead + keyBlockSize - 1, keyBlockSize);
}

int slotsOfRound(Group group) {
  return clamp(slotCount(group) - firstSlot, 0, slotsPerRound);
}

int blockOf(Group group, int slot) {
  return firstSlot + slot;
}

int keyBase(int head) {
  return ((head / heads) * keyValueHeads + (head % heads) / (heads / keyValueHeads)) * keyLength;
}
int firstKeyRow(int head) {
  return keyBase(head);
}
ivec4 positionsIn(int block, int tile, int four) {
  return block * keyBlockSize + tile + (ivec4(0, 1, 2, 3) + 4 * four) * tilesPerBlock;
}
void compute(int row, int texel) {
  int groupRow = divide(row, parts);
  int part = row - groupRow * parts;
  Group group = groupAt(firstGroup + groupRow);
  int slots = slotsOfRound(group);
  vec4 rowMax = readStatistics(row, 0);
  vec4 sum0 = vec4(0.0);
  vec4 sum1 = vec4(0.0);
  vec4 sum2 = vec4(0.0);
  vec4 sum3 = vec4(0.0);
  vec4 sum4 = vec4(0.0);
  vec4 sum5 = vec4(0.0);
  vec4 sum6 = vec4(0.0);
  vec4 sum7 = vec4(0.0);
  ivec2 at = scoresAt(groupRow);
  int firstOfHead = firstKeyRow(group.head);
  int lastOfHead = keyLength - 1;
  for (int slot = part; slot < slots; slot += parts) {
    int block = blockOf(group, slot);
    int tile = slot * tilesPerBlock;
    for (int t = 0; t < tilesPerBlock; t++, tile++) {
      ivec4 rows0 = firstOfHead + min(positionsIn(block, t, 0), lastOfHead);
      ivec4 rows1 = firstOfHead + min(positionsIn(block, t, 1), lastOfHead);
      {
        int i = rows0[0];
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 0);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 1);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 2);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 3);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 4);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 5);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 6);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
        ivec2 rowAt = rowsAt(i * valueDim + 8 * texel);
        vec4 scores = fetchScores(at, tile, 7);
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(-1e30));
        vec4 x0 = fourRows(rowAt, valueDim - 8 * texel - 0);
        vec4 x1 = fourRows(afterFourRows(rowAt), valueDim - 8 * texel - 4);
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
