// An invocation unpacks a value.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = unpack2x16float(bitcast<u32>(words[index / 2]))[index % 2];
  }
}
