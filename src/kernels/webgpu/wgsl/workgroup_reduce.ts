import {localOf} from './rows.js';

/**
 * Sum and maximum over all invocations of a workgroup, in workgroup memory. All invocations call them together and all
 * get the result. `threads` is a power of two.
 */
export function workgroupReduce(threads: number): string {
  const reduce = (name: string, combine: string) => `
fn ${name}(x : f32) -> f32 {
  ${localOf(threads)}
  reduceBuffer[local] = x;
  // Barriers: each round reads what other invocations wrote in the round before.
  workgroupBarrier();
  for (var stride = ${threads / 2}; stride > 0; stride /= 2) {
    if (local < stride) {
      reduceBuffer[local] = ${combine};
    }
    workgroupBarrier();
  }
  let total = reduceBuffer[0];
  // Barrier: the next reduction overwrites the buffer.
  workgroupBarrier();
  return total;
}`;
  return `
var<workgroup> reduceBuffer : array<f32, ${threads}>;
${reduce('workgroupSum', 'reduceBuffer[local] + reduceBuffer[local + stride]')}
${reduce('workgroupMax', 'max(reduceBuffer[local], reduceBuffer[local + stride])')}`;
}
