// An invocation adds up one value over the heads that share it, which lie one after another.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    let headSize = uniforms.outShape.z * uniforms.outShape.w;
    let at = uniforms.first + (index / headSize) * uniforms.sharing * headSize + index % headSize;
    var sum = 0.0;
    for (var head = 0; head < uniforms.sharing; head++) {
      sum += gradients[at + head * headSize];
    }
    result[index] = sum;
  }
}
