// An invocation writes one key.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = index % uniforms.outShape.z;
  }
}
