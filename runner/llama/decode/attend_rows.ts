import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, localOf, noScores, stateVectors, unroll, workgroupIndex} from '../../../src/internal';
import {rotatedRow} from './rotated_row';
import type {LayerInputs} from './layer_inputs';

const THREADS = 128;
/** Keys of an invocation a round. */
const KEYS_EACH = 2;
const ROUND_KEYS = THREADS * KEYS_EACH;
/** Keys of a chunk at the least. */
const LEAST_KEYS = 128;
/** Workgroups that keep a large device busy. A guess. */
const WANTED_WORKGROUPS = 256;
const [FEWEST_CHUNKS, MOST_CHUNKS] = [16, 64];

type Shape = LayerInputs['shape'];

/** Query rows of a key head that a workgroup takes, so that each key it loads is used as often. Bounded by workgroup memory. */
function membersOf({heads, keyValueHeads, headDim}: Shape, rows: number): number {
  return (heads / keyValueHeads) * rows > 4 && headDim <= 128 ? 8 : 4;
}

/** Workgroups that share out the query rows of a key head. */
const tilesOf = (shape: Shape, rows: number): number =>
  Math.ceil(((shape.heads / shape.keyValueHeads) * rows) / membersOf(shape, rows));

/** Into how many the keys are cut, by what a cache may hold: a recorded step fits every length until then. */
function chunksOf(shape: Shape, rows: number, capacity: number): number {
  const wanted = Math.ceil(WANTED_WORKGROUPS / (shape.keyValueHeads * tilesOf(shape, rows)));
  return Math.min(Math.max(FEWEST_CHUNKS, Math.min(MOST_CHUNKS, wanted)), Math.ceil(capacity / LEAST_KEYS));
}

/** Of the output of `AttendRowsProgram`. Default: of a cache of any capacity. */
export const statesShape = (shape: Shape, rows: number, capacity = Infinity): [number, number, number] => [
  rows * shape.heads,
  chunksOf(shape, rows, capacity),
  4 * stateVectors(shape.headDim),
];

interface AttendVariant {
  headDim: number;
  members: number;
  tiles: number;
  hasNorm: boolean;
  hasWindow: boolean;
}

/**
 * Attention of new tokens to the keys of a cache (see `StoreRowsProgram`) up to their own: states of the softmax, `[token, head]` by
 * chunks of keys, for `CombineStatesProgram`. Those of tokens past the span are left as they are.
 */
export class AttendRowsProgram extends AttentionProgram<AttendVariant> {
  constructor({projected, span, rotary, norm, shape, window}: LayerInputs, cache: TensorInfo) {
    const [rows] = projected.shape;
    const {headDim, keyValueHeads} = shape;
    const tiles = tilesOf(shape, rows);
    const outputShape = statesShape(shape, rows, cache.shape[2]);
    const [, chunks] = outputShape;
    super({
      name: 'AttendRows',
      inputs: {
        projected,
        span,
        cos: rotary.cos,
        signedSin: rotary.signedSin,
        norm: norm?.weight,
        cache: {tensor: cache, components: 4},
      },
      outputShape,
      outputComponents: 4,
      threads: THREADS,
      workgroups: keyValueHeads * tiles * chunks,
      uniforms: {
        heads: {type: 'i32', value: shape.heads},
        chunks: {type: 'i32', value: chunks},
        logitScale: {type: 'f32', value: Math.LOG2E / Math.sqrt(headDim)},
        epsilon: {type: 'f32', value: norm?.epsilon ?? 0},
        ...(window !== undefined && {window: {type: 'i32', value: window}}),
      },
      variant: {
        headDim,
        members: membersOf(shape, rows),
        tiles,
        hasNorm: norm !== undefined,
        hasWindow: window !== undefined,
      },
    });
  }

  protected shader({headDim, members, tiles, hasNorm, hasWindow}: AttendVariant): string {
    /** Vectors of four words, that is eight values, of a row. */
    const vectors = headDim / 8;
    /** Invocations that add up values of the same eight columns, each over keys of its own: a power of two. */
    const slices = 2 ** Math.floor(Math.log2(THREADS / vectors));
    const parts = members / 4;
    const ofParts = (text: (p: number) => string) => unroll(parts, text, ', ');
    const eachPart = (text: (p: number) => string) => unroll(parts, text);
    /** Of each query row: where its value stands in `Members`. */
    const eachMember = (text: (m: number, place: string) => string) =>
      unroll(members, (m) => text(m, `[${Math.floor(m / 4)}][${m % 4}]`));
    const eachKey = (text: (j: number) => string) => unroll(KEYS_EACH, text);
    const isSeen = (j: number, p: number) => {
      const key = `vec4<i32>(key${j})`;
      return hasWindow ? `(${key} < endsOf${p}) & (${key} >= startsOf${p})` : `${key} < endsOf${p}`;
    };
    const memoryAt = (p: number, offset = '') => `memory[${p * THREADS} + local${offset}]`;
    const reduce = (name: string, combine: (a: string, b: string) => string) => `
fn ${name}(x : Members) -> Members {
  ${localOf(THREADS)}
  // Barrier: what memory holds until now has been read.
  workgroupBarrier();
  ${eachPart((p) => `${memoryAt(p)} = x[${p}];`)}
  for (var stride = ${THREADS / 2}; stride > 0; stride /= 2) {
    // Barrier: what to combine with is written by other invocations.
    workgroupBarrier();
    if (local < stride) {
      ${eachPart((p) => `${memoryAt(p)} = ${combine(memoryAt(p), memoryAt(p, ' + stride'))};`)}
    }
  }
  // Barriers: all read the result, which is overwritten next.
  workgroupBarrier();
  let total = Members(${ofParts((p) => `memory[${p * THREADS}]`)});
  workgroupBarrier();
  return total;
}`;
    return `
// A workgroup takes up to ${members} query rows that share a key head, of its ${tiles} such tiles, and a chunk of the keys. It walks over
// them, ${ROUND_KEYS} a round, with an online softmax. First an invocation computes the scores of ${KEYS_EACH} keys with all query rows, in registers; their
// weights go to workgroup memory. Then it adds up eight columns of the values over every ${slices}th key, in registers; these sums are added
// up at the end, a query row at a time.
${workgroupIndex}
${noScores}
${rotatedRow(headDim, hasNorm)}
// One value of each query row.
alias Members = array<vec4<f32>, ${parts}>;
var<workgroup> query : array<array<vec4<f32>, ${headDim / 4}>, ${members}>;
// Keys that each query row sees.
var<workgroup> ends : array<i32, ${members}>;
// What is reduced; the weights of a round, by keys; or the sums of a query row, two for each invocation.
var<workgroup> memory : array<vec4<f32>, ${ROUND_KEYS * parts}>;
var<workgroup> isIdle : u32;

fn unpacked(words : vec2<i32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(bitcast<u32>(words.x)), unpack2x16float(bitcast<u32>(words.y)));
}
${reduce('largestOf', (a, b) => `max(${a}, ${b})`)}
${reduce('sumsOf', (a, b) => `${a} + ${b}`)}

// Where the state of a query row, of those that share the key head of a workgroup, begins: see softmax_state.ts.
fn stateOf(member : i32, item : i32) -> i32 {
  let group = uniforms.heads / uniforms.cacheShape.y;
  let keyHead = item / (${tiles} * uniforms.chunks);
  let row = member / group * uniforms.heads + keyHead * group + member % group;
  return (row * uniforms.chunks + item % uniforms.chunks) * ${stateVectors(headDim)};
}

fn main(index : i32) {
  ${localOf(THREADS)}
  let keyHeads = uniforms.cacheShape.y;
  let capacity = uniforms.cacheShape.z;
  let group = uniforms.heads / keyHeads;
  let chunks = uniforms.chunks;
  // A workgroup too many computes the last one again.
  let item = min(workgroupIndex(), keyHeads * ${tiles} * chunks - 1);
  let keyHead = item / (${tiles} * chunks);
  let firstMember = item / chunks % ${tiles} * ${members};
  let memberCount = min(${members}, group * span[1] - firstMember);
  let keys = span[0] + span[1];
  ${
    hasWindow
      ? `// From what the first token sees.
  let firstSeen = max(0, span[0] + 1 - uniforms.window);
  let chunk = max(${LEAST_KEYS}, (keys - firstSeen + chunks - 1) / chunks);
  let first = firstSeen + item % chunks * chunk;`
      : `let chunk = max(${LEAST_KEYS}, (keys + chunks - 1) / chunks);
  let first = item % chunks * chunk;`
  }
  let end = min(keys, first + chunk);
  if (local < memberCount) {
    let member = firstMember + local;
    ends[local] = span[0] + member / group + 1;
    if (first >= keys) {
      // Nothing was seen: without weight, so that the values do not matter.
      result[stateOf(member, item) + ${2 * vectors}] = vec4<f32>(lowest, 0.0, 0.0, 0.0);
    }
  }
  if (local == 0) {
    isIdle = select(0u, 1u, first >= keys || memberCount <= 0);
  }
  if (workgroupUniformLoad(&isIdle) == 1u) {
    return;
  }
  for (var i = local; i < ${(members * headDim) / 4}; i += ${THREADS}) {
    // Places without a query row hold the last one again.
    let member = firstMember + min(i / ${headDim / 4}, memberCount - 1);
    let token = member / group;
    let head = keyHead * group + member % group;
    let scale = rowScale(token, head);
    let vector = i % ${headDim / 4};
    // All four at once: two invocations must not write to one vector.
    query[i / ${headDim / 4}][vector] = uniforms.logitScale * vec4<f32>(
      ${unroll(4, (c) => `rotated(token, head, 4 * vector + ${c}, scale)`, ', ')});
  }
  let vector = local % ${vectors};
  let slice = local / ${vectors};
  let keyRow = keyHead * capacity;
  let valueRow = (keyHeads + keyHead) * capacity;
  var rowMax = Members(${ofParts(() => 'vec4<f32>(lowest)')});
  var rowSum = Members();
  ${eachMember((m) => `var a${m} = vec4<f32>(0.0); var b${m} = vec4<f32>(0.0);`)}
  // Barrier: all read the query rows, and what they see.
  workgroupBarrier();
  ${eachPart((p) => {
    const ends = `vec4<i32>(${unroll(4, (c) => `ends[${4 * p + c}]`, ', ')})`;
    const starts = hasWindow ? `\n  let startsOf${p} = ${ends} - uniforms.window;` : '';
    return `let endsOf${p} = min(${ends}, vec4<i32>(end));${starts}`;
  })}
  // As many rounds for every chunk, which the barriers need: the last chunk may have fewer keys.
  for (var round = 0; round * ${ROUND_KEYS} < chunk; round++) {
    let start = first + round * ${ROUND_KEYS};
    ${eachKey(
      (j) => `let key${j} = start + local + ${j * THREADS};
    let row${j} = (keyRow + min(key${j}, end - 1)) * ${vectors};
    var scores${j} = Members();`,
    )}
    for (var v = 0; v < ${vectors}; v++) {
      ${eachKey(
        (j) => `let words${j} = cache[row${j} + v];
      let x${j} = unpacked(words${j}.xy);
      let y${j} = unpacked(words${j}.zw);`,
      )}
      ${eachMember(
        (m, place) => `{
        let x = query[${m}][2 * v];
        let y = query[${m}][2 * v + 1];
        ${eachKey((j) => `scores${j}${place} += dot(x, x${j}) + dot(y, y${j});`)}
      }`,
      )}
    }
    var newMax = rowMax;
    ${eachPart((p) =>
      eachKey(
        (j) => `let isSeen${j}_${p} = ${isSeen(j, p)};
    newMax[${p}] = max(newMax[${p}], select(vec4<f32>(lowest), scores${j}[${p}], isSeen${j}_${p}));`,
      ),
    )}
    newMax = largestOf(newMax);
    let rescale = Members(${ofParts((p) => `exp2(rowMax[${p}] - newMax[${p}])`)});
    ${eachPart((p) => `rowSum[${p}] *= rescale[${p}];`)}
    ${eachPart((p) =>
      eachKey(
        (j) => `{
      let weights = select(vec4<f32>(0.0), exp2(scores${j}[${p}] - newMax[${p}]), isSeen${j}_${p});
      rowSum[${p}] += weights;
      memory[${p * ROUND_KEYS + j * THREADS} + local] = weights;
    }`,
      ),
    )}
    ${eachMember((m, place) => `a${m} *= rescale${place}; b${m} *= rescale${place};`)}
    rowMax = newMax;
    // Barrier: the values take weights that others wrote.
    workgroupBarrier();
    if (slice < ${slices}) {
      let count = min(${ROUND_KEYS}, end - start);
      for (var i = slice; i < count; i += ${slices}) {
        let words = cache[(valueRow + start + i) * ${vectors} + vector];
        let x = unpacked(words.xy);
        let y = unpacked(words.zw);
        ${eachPart((p) => `let weights${p} = memory[${p * ROUND_KEYS} + i];`)}
        ${eachMember((m) => `a${m} += weights${Math.floor(m / 4)}[${m % 4}] * x; b${m} += weights${Math.floor(m / 4)}[${m % 4}] * y;`)}
      }
    }
  }
  let total = sumsOf(rowSum);
  ${eachMember(
    (m, place) => `{
    if (slice < ${slices}) {
      memory[2 * local] = a${m};
      memory[2 * local + 1] = b${m};
    }
    // Barrier: one invocation for each vec4 adds up what the slices wrote.
    workgroupBarrier();
    if (local < ${2 * vectors} && ${m} < memberCount) {
      var sum = memory[local];
      for (var s = 1; s < ${slices}; s++) {
        sum += memory[s * ${2 * vectors} + local];
      }
      let state = stateOf(firstMember + ${m}, item);
      result[state + local] = sum;
      if (local == 0) {
        result[state + ${2 * vectors}] = vec4<f32>(rowMax${place}, total${place}, 0.0, 0.0);
      }
    }
    // Barrier: the next query row overwrites the sums.
    workgroupBarrier();
  }`,
  )}
}`;
  }
}
