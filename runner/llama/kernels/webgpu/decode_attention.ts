import {
  AttentionProgram,
  headVectors,
  readRow,
  rowComponents,
  workgroupIndex,
  workgroupReduce,
  writeRow,
} from '../../../../src/internal';
import type {DecodeAttentionInputs} from '../decode_attention';

/** Every WebGPU device allows a workgroup of so many invocations; the arrays below take 9 KiB of the 16 it has at least. */
const THREADS = 256;
/** Keys whose scores an invocation computes side by side, so that their loads overlap. */
const KEYS = 4;

interface DecodeVariant {
  headDim: number;
}

/** float32 `[1, heads, 1, headDim]`: attention of one token to the rows of a cache. */
export class DecodeAttentionProgram extends AttentionProgram<DecodeVariant> {
  constructor({query, restKey, restValue, pageKey, pageValue, pageBias}: DecodeAttentionInputs) {
    const [, heads, , headDim] = query.shape;
    const components = rowComponents(headDim);
    super({
      name: 'DecodeAttention',
      inputs: {
        query: {tensor: query, components},
        restKey: {tensor: restKey, components},
        restValue: {tensor: restValue, components},
        pageKey: {tensor: pageKey, components},
        pageValue: {tensor: pageValue, components},
        pageBias: {tensor: pageBias, components: 1},
      },
      outputShape: query.shape,
      outputType: 'float32',
      outputComponents: components,
      threads: THREADS,
      workgroups: heads,
      uniforms: {logitScale: {type: 'f32', value: Math.LOG2E / Math.sqrt(headDim)}},
      variant: {headDim},
    });
  }

  protected shader({headDim}: DecodeVariant): string {
    const vectors = headVectors(headDim);
    // Invocations that add up values of the same four columns, each for keys of its own.
    const slices = Math.floor(THREADS / vectors);
    return `
// A workgroup takes one head and walks over the rest, then the page, ${THREADS * KEYS} keys a round, with an online softmax. First an
// invocation computes the scores of ${KEYS} keys, in registers; their weights go to workgroup memory. Then it adds up the values
// of one vector of columns over every ${slices}th key, in a register; these sums are added up once at the end.
${workgroupIndex}
${workgroupReduce(THREADS)}
${readRow('readQuery', 'query', headDim)}
${readRow('readRestKey', 'restKey', headDim)}
${readRow('readPageKey', 'pageKey', headDim)}
${readRow('readRestValue', 'restValue', headDim)}
${readRow('readPageValue', 'pageValue', headDim)}
${writeRow('writeResult', headDim)}
var<workgroup> weights : array<f32, ${THREADS * KEYS}>;
var<workgroup> partialOutput : array<vec4<f32>, ${THREADS}>;
const masked = -1e38;

fn readKey(keyHead : i32, key : i32, vector : i32) -> vec4<f32> {
  let rest = uniforms.restKeyShape.z;
  if (key < rest) {
    return readRestKey(keyHead * rest + key, vector);
  }
  return readPageKey(keyHead * uniforms.pageKeyShape.z + key - rest, vector);
}

fn readValue(keyHead : i32, key : i32, vector : i32) -> vec4<f32> {
  let rest = uniforms.restKeyShape.z;
  if (key < rest) {
    return readRestValue(keyHead * rest + key, vector);
  }
  return readPageValue(keyHead * uniforms.pageKeyShape.z + key - rest, vector);
}

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.y;
  // A workgroup too many computes the last head again, for the barriers' sake, and writes nothing.
  let head = min(workgroupIndex(), heads - 1);
  let keyHead = head / (heads / uniforms.restKeyShape.y);
  let rest = uniforms.restKeyShape.z;
  let keys = rest + uniforms.pageKeyShape.z;
  let vector = local % ${vectors};
  let slice = local / ${vectors};
  var rowMax = masked;
  var rowSum = 0.0;
  var output = vec4<f32>(0.0);
  for (var first = 0; first < keys; first += ${THREADS * KEYS}) {
    var scores = vec4<f32>(0.0);
    for (var v = 0; v < ${vectors}; v++) {
      let q = readQuery(head, v);
      for (var k = 0; k < ${KEYS}; k++) {
        // Past the last key it is read once more: its score is masked below.
        scores[k] += dot(q, readKey(keyHead, min(first + local + k * ${THREADS}, keys - 1), v));
      }
    }
    var most = rowMax;
    for (var k = 0; k < ${KEYS}; k++) {
      let key = first + local + k * ${THREADS};
      var score = scores[k] * uniforms.logitScale;
      if (key >= keys) {
        score = masked;
      } else if (key >= rest) {
        score += pageBias[key - rest];
      }
      scores[k] = score;
      most = max(most, score);
    }
    // Its barriers also keep the weights of the round before until everybody has read them.
    let newMax = workgroupMax(most);
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    let weight = exp2(scores - newMax);
    rowSum = rowSum * rescale + dot(weight, vec4<f32>(1.0));
    for (var k = 0; k < ${KEYS}; k++) {
      weights[local + k * ${THREADS}] = weight[k];
    }
    // Barrier: the values take weights that others wrote.
    workgroupBarrier();
    output *= rescale;
    if (slice < ${slices}) {
      let count = min(${THREADS * KEYS}, keys - first);
      for (var i = slice; i < count; i += ${slices}) {
        output += weights[i] * readValue(keyHead, first + i, vector);
      }
    }
  }
  partialOutput[local] = output;
  // Its barriers also let everybody's output be read.
  let total = workgroupSum(rowSum);
  if (workgroupIndex() < heads && local < ${vectors}) {
    for (var s = 1; s < ${slices}; s++) {
      output += partialOutput[s * ${vectors} + local];
    }
    writeResult(head, local, output / total);
  }
}`;
  }
}
