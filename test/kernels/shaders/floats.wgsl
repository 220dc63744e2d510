// An invocation converts one number.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = f32(integers[index]);
  }
}
