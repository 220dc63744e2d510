// An invocation writes what is known of one head.

fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / uniforms.heads], 0, uniforms.keyLength);
}

fn main(head : i32) {
  if (head < uniforms.invocations) {
    result[head] = vec4<f32>(f32(keyEnd(head)), 1.4426950408889634f * alibiSlopes[head % uniforms.heads], 1.4426950408889634f * sinks[head % uniforms.heads], 0.0);
  }
}
