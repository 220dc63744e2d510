// An invocation copies one number.
fn main(index : i32) {
  if (index < uniforms.keys) {
    result[index] = keyIndices[index];
  } else if (index < uniforms.invocations) {
    result[index] = lists[index - uniforms.keys];
  }
}
