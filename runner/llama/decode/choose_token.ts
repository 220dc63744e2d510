import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, workgroupIndex} from '../../../src/internal';

const THREADS = 256;

/** The id of the largest of logits, float32 `[1, vocabSize]`; of equal ones the first: int32 `[1]`. */
export class LargestLogitProgram extends AttentionProgram<object> {
  constructor(logits: TensorInfo) {
    super({
      name: 'LargestLogit',
      inputs: {logits},
      outputShape: [1],
      outputType: 'int32',
      threads: THREADS,
      workgroups: 1,
      variant: {},
    });
  }

  protected shader(): string {
    return `
// One workgroup: an invocation looks at every ${THREADS}th logit, then the largest of all is found in workgroup memory.
${workgroupIndex}
var<workgroup> values : array<f32, ${THREADS}>;
var<workgroup> ids : array<i32, ${THREADS}>;

fn main(index : i32) {
  let local = i32(localIndex);
  let count = uniforms.logitsShape.y;
  var largest = -3.4e38;
  var id = count;
  for (var i = local; i < count; i += ${THREADS}) {
    if (logits[i] > largest) {
      largest = logits[i];
      id = i;
    }
  }
  values[local] = largest;
  ids[local] = id;
  for (var stride = ${THREADS / 2}; stride > 0; stride /= 2) {
    // Barrier: what to compare with is written by other invocations.
    workgroupBarrier();
    if (local < stride) {
      let other = local + stride;
      if (values[other] > values[local] || (values[other] == values[local] && ids[other] < ids[local])) {
        values[local] = values[other];
        ids[local] = ids[other];
      }
    }
  }
  if (local == 0 && workgroupIndex() == 0) {
    result[0] = min(ids[0], count - 1);
  }
}`;
  }
}
