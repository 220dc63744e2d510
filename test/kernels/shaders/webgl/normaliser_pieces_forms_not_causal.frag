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

uniform sampler2DArray query;
uniform int queryShift;
uniform int queryTexels;
ivec2 queryAt(int row) {
  return ivec2(row & ((1 << queryShift) - 1), (row >> queryShift) * queryTexels);
}
vec4 fetchQuery(ivec2 at, int texel, int layer) {
  return texelFetch(query, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readQuery(int row, int texel) {
  return fetchQuery(queryAt(row), texel, 0);
}

uniform sampler2DArray key;
uniform int keyShift;
uniform int keyTexels;
ivec2 keyAt(int row) {
  return ivec2(row & ((1 << keyShift) - 1), (row >> keyShift) * keyTexels);
}
vec4 fetchKey(ivec2 at, int texel, int layer) {
  return texelFetch(key, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readKey(int row, int texel) {
  return fetchKey(keyAt(row), texel, 0);
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

uniform sampler2DArray sinkBlocks;
uniform int sinkBlocksShift;
uniform int sinkBlocksTexels;
ivec2 sinkBlocksAt(int row) {
  return ivec2(row & ((1 << sinkBlocksShift) - 1), (row >> sinkBlocksShift) * sinkBlocksTexels);
}
vec4 fetchSinkBlocks(ivec2 at, int texel, int layer) {
  return texelFetch(sinkBlocks, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readSinkBlocks(int row, int texel) {
  return fetchSinkBlocks(sinkBlocksAt(row), texel, 0);
}

uniform sampler2DArray alibiSlopes;
uniform int alibiSlopesShift;
uniform int alibiSlopesTexels;
ivec2 alibiSlopesAt(int row) {
  return ivec2(row & ((1 << alibiSlopesShift) - 1), (row >> alibiSlopesShift) * alibiSlopesTexels);
}
vec4 fetchAlibiSlopes(ivec2 at, int texel, int layer) {
  return texelFetch(alibiSlopes, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 readAlibiSlopes(int row, int texel) {
  return fetchAlibiSlopes(alibiSlopesAt(row), texel, 0);
}
uniform int heads;
uniform int queryLength;
uniform int keyLength;
uniform int queryOffset;
uniform int blockSize;
uniform int keyBlockSize;
uniform int segmentSize;
uniform int queryBlocks;
uniform int keyBlocks;
uniform int window;
uniform int firstHead;
uniform int firstBlockRow;
uniform int groups;
uniform int groupsOfPhase;
uniform int tilesPerBlock;
uniform int exactPieces;
uniform int orderTiles;
uniform float logitScale;
uniform float softCap;
uniform float inverseSoftCap;
layout(location = 0) out vec4 result0;
layout(location = 1) out vec4 result1;
// A fragment walks over a piece of the keys, a tile of 8 at a time: over a block that always counts, under the masks, or over
// sampled keys that compete, but for those of the block of key 0. One key of 16 is sampled.

int firstVisibleBlock(int queryBlock) {
  int firstKey = max(0, queryOffset + queryBlock * blockSize - window + 1);
  return min(firstKey / segmentSize * segmentSize / keyBlockSize, keyBlocks);
}
bool seesFirstKey(int queryBlock) {
  return queryOffset + queryBlock * blockSize < window;
}
int candidateBlocks(int queryBlock) {
  return min(((queryOffset + min((queryBlock + 1) * blockSize, queryLength) + window - 2) / segmentSize + 1) * segmentSize / keyBlockSize, keyBlocks);
}
int competingKeys(int head, int queryBlock) {
  return min(candidateBlocks(queryBlock) * keyBlockSize, keyLength);
}
int visibleBlocks(int queryBlock) {
  return min(((queryOffset + min((queryBlock + 1) * blockSize, queryLength) + window - 2) / segmentSize + 1) * segmentSize / keyBlockSize, keyBlocks);
}

struct Group {
  int head;
  int block;
  int phase;
  ivec4 rows;
};
Group groupAt(int row) {
  int blockInRange = divide(row, groups);
  int group = row - blockInRange * groups;
  int phase = divide(group, groupsOfPhase);
  ivec4 fours = group - phase * groupsOfPhase + ivec4(0, 1, 2, 3) * groupsOfPhase;
  int blockRow = firstBlockRow + blockInRange;
  int head = divide(blockRow, queryBlocks);
  return Group(
    head,
    blockRow - head * queryBlocks,
    phase,
    4 * fours + ((phase - fours) & 3)
  );
}
ivec4 originalsOf(int head, ivec4 slots) {
  ivec4 originals = ivec4(-1);
  for (int i = 0; i < 4; i++) {
    if (slots[i] >= 0) {
      int block = divide(slots[i], keyBlockSize);
      int inBlock = slots[i] - block * keyBlockSize;
      int key = divide(inBlock, orderTiles);
      int column = (inBlock - key * orderTiles) * 8 + key;
      originals[i] = int(readKeyIndices(head * keyBlocks + block, column / 4)[column % 4]);
    }
  }
  return originals;
}

ivec4 orNone(ivec4 positions, int end) {
  return ivec4(mix(vec4(positions), vec4(-1.0), greaterThanEqual(positions, ivec4(end))));
}

// By its series where the quotient would lose digits.
vec4 softTanh(vec4 x) {
  vec4 power = exp2(-2.8853900817779268 * abs(x));
  vec4 square = x * x;
  vec4 series = x * (1.0 + square * (-0.3333333333333333 + square * (0.13333333333333333 - 0.05396825396825397 * square)));
  return mix(sign(x) * (1.0 - power) / (1.0 + power), series, lessThan(abs(x), vec4(0.25)));
}
float slope;
vec4 formed(vec4 scores, ivec4 distances) {
  scores = softCap * softTanh(scores * inverseSoftCap);
  scores -= slope * vec4(abs(distances));
  return mix(scores, vec4(-1e30), greaterThanEqual(abs(distances), ivec4(window)));
}
vec4 visible(int key, ivec4 queries, vec4 scores) {
  if (key < 0) {
    return vec4(-1e30);
  }
  scores = formed(scores, queries + queryOffset - key);
  return scores;
}
ivec4 sampledSlots(ivec4 samples, int phase) {
  ivec4 run = samples / 16;
  ivec4 tile = 4 * run + ((-phase - run) & 3);
  return 64 * tile + 4 * (samples % 16) + (-phase & 3);
}
ivec4 orNoneOfBlock(ivec4 slots, int block, int end) {
  ivec4 inBlock = slots - block * keyBlockSize;
  ivec4 hits = ivec4(greaterThanEqual(inBlock, ivec4(0))) * ivec4(lessThan(inBlock, ivec4(keyBlockSize)));
  return ivec4(mix(vec4(orNone(slots, end)), vec4(-1.0), equal(hits, ivec4(1))));
}
ivec4 orNoneBefore(ivec4 slots, int first) {
  return ivec4(mix(vec4(slots), vec4(-1.0), lessThan(slots, ivec4(first))));
}
void compute(int row, int piece) {
  Group group = groupAt(row);
  int head = group.head;
  ivec4 queries = group.block * blockSize + group.rows;
  int firstKey = (head - firstHead) * keyLength;
  int candidates = candidateBlocks(group.block);
  int ownBlocks = visibleBlocks(group.block) - candidates;
  int competing = competingKeys(head, group.block);
  int sink = int(readSinkBlocks(head, 0).x);
  slope = 1.4426950408889634 * readAlibiSlopes(group.head % heads, 0).x;
  bool seesSink = seesFirstKey(group.block);
  int firstSlot = firstVisibleBlock(group.block) * keyBlockSize;
  bool exact = piece < exactPieces;
  int block = piece < ownBlocks ? candidates + piece : sink;
  int firstSample = (piece - exactPieces) * 128;
  int tiles = exact ? tilesPerBlock : 16;
  // In its own segment the block of key 0 is one of the own blocks.
  if (exact ? piece > ownBlocks || piece == ownBlocks && (sink >= candidates || !seesSink) : 16 * firstSample >= competing) {
    tiles = 0;
  }
  float weight = exact ? 0.0 : 4.0;
  vec4 rowMax = vec4(-1e29);
  vec4 rowSum = vec4(0.0);
  for (int tile = 0; tile < tiles; tile++) {
    ivec4 places0 = tile + (ivec4(0, 1, 2, 3) + 0) * tiles;
    ivec4 positions0 = exact ? block * keyBlockSize + places0 : sampledSlots(firstSample + places0, group.phase);
    ivec4 keys0 = exact ? ivec4(readKeyIndices(head * keyBlocks + block, tile * 2 + 0)) : originalsOf(head, orNoneBefore(orNoneOfBlock(positions0, seesSink ? sink : -1, competing), firstSlot));
    ivec4 places1 = tile + (ivec4(0, 1, 2, 3) + 4) * tiles;
    ivec4 positions1 = exact ? block * keyBlockSize + places1 : sampledSlots(firstSample + places1, group.phase);
    ivec4 keys1 = exact ? ivec4(readKeyIndices(head * keyBlocks + block, tile * 2 + 1)) : originalsOf(head, orNoneBefore(orNoneOfBlock(positions1, seesSink ? sink : -1, competing), firstSlot));

  ivec2 query0 = queryAt(head * queryLength + min(queries[0], queryLength - 1));
  ivec2 query1 = queryAt(head * queryLength + min(queries[1], queryLength - 1));
  ivec2 query2 = queryAt(head * queryLength + min(queries[2], queryLength - 1));
  ivec2 query3 = queryAt(head * queryLength + min(queries[3], queryLength - 1));
  ivec2 key0 = keyAt(firstKey + min(positions0[0], keyLength - 1));
  ivec2 key1 = keyAt(firstKey + min(positions0[1], keyLength - 1));
  ivec2 key2 = keyAt(firstKey + min(positions0[2], keyLength - 1));
  ivec2 key3 = keyAt(firstKey + min(positions0[3], keyLength - 1));
  ivec2 key4 = keyAt(firstKey + min(positions1[0], keyLength - 1));
  ivec2 key5 = keyAt(firstKey + min(positions1[1], keyLength - 1));
  ivec2 key6 = keyAt(firstKey + min(positions1[2], keyLength - 1));
  ivec2 key7 = keyAt(firstKey + min(positions1[3], keyLength - 1));
  vec4 score0 = vec4(0.0);
  vec4 score1 = vec4(0.0);
  vec4 score2 = vec4(0.0);
  vec4 score3 = vec4(0.0);
  vec4 score4 = vec4(0.0);
  vec4 score5 = vec4(0.0);
  vec4 score6 = vec4(0.0);
  vec4 score7 = vec4(0.0);
  for (int v = 0; v < 16; v++) {
    vec4 q0 = fetchQuery(query0, v, 0);
    vec4 q1 = fetchQuery(query1, v, 0);
    vec4 q2 = fetchQuery(query2, v, 0);
    vec4 q3 = fetchQuery(query3, v, 0);
    vec4 k;
    k = fetchKey(key0, v, 0);
    score0 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key1, v, 0);
    score1 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key2, v, 0);
    score2 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key3, v, 0);
    score3 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key4, v, 0);
    score4 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key5, v, 0);
    score5 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key6, v, 0);
    score6 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
    k = fetchKey(key7, v, 0);
    score7 += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));
  }
    vec4 s0 = weight + visible(keys0[0], queries, logitScale * score0);
    vec4 s1 = weight + visible(keys0[1], queries, logitScale * score1);
    vec4 s2 = weight + visible(keys0[2], queries, logitScale * score2);
    vec4 s3 = weight + visible(keys0[3], queries, logitScale * score3);
    vec4 s4 = weight + visible(keys1[0], queries, logitScale * score4);
    vec4 s5 = weight + visible(keys1[1], queries, logitScale * score5);
    vec4 s6 = weight + visible(keys1[2], queries, logitScale * score6);
    vec4 s7 = weight + visible(keys1[3], queries, logitScale * score7);
    vec4 newMax = rowMax;
    newMax = max(newMax, s0);
    newMax = max(newMax, s1);
    newMax = max(newMax, s2);
    newMax = max(newMax, s3);
    newMax = max(newMax, s4);
    newMax = max(newMax, s5);
    newMax = max(newMax, s6);
    newMax = max(newMax, s7);
    rowSum *= exp2(rowMax - newMax);
    rowSum += exp2(s0 - newMax);
    rowSum += exp2(s1 - newMax);
    rowSum += exp2(s2 - newMax);
    rowSum += exp2(s3 - newMax);
    rowSum += exp2(s4 - newMax);
    rowSum += exp2(s5 - newMax);
    rowSum += exp2(s6 - newMax);
    rowSum += exp2(s7 - newMax);
    rowMax = newMax;
  }
  result0 = rowMax;
  result1 = rowSum;
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
