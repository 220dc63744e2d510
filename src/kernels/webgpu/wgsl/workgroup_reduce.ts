/**
 * Sum and maximum over all invocations of a workgroup, in workgroup memory. All invocations call them together and all
 * get the result. `threads` is a power of two.
 */
export function workgroupReduce(threads: number): string {
  const reduce = (name: string, combine: string) => `
fn ${name}(x : f32) -> f32 {
  let local = i32(localIndex);
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

/** Prefix sum over a workgroup of `threads` invocations, a constant of the shader; `counts` of the last one is the total. */
export const workgroupCount = `
var<workgroup> counts : array<i32, threads>;

// Number of invocations up to this one, itself included, for which keep holds.
fn countUpTo(keep : bool) -> i32 {
  let local = i32(localIndex);
  var count = select(0, 1, keep);
  counts[local] = count;
  for (var step = 1; step < threads; step *= 2) {
    // Barriers: read what others wrote in the round before; then let all read before anyone writes.
    workgroupBarrier();
    if (local >= step) {
      count += counts[local - step];
    }
    workgroupBarrier();
    counts[local] = count;
  }
  workgroupBarrier();
  return count;
}`;
