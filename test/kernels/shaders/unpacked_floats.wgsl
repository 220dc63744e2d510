// An invocation unpacks four values.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = vec4<f32>(unpack2x16float(bitcast<u32>(words[2 * index])), unpack2x16float(bitcast<u32>(words[2 * index + 1])));
  }
}
