// An invocation writes eight values of one key.

fn keyRow(head : i32, position : i32) -> i32 {
  let heads = uniforms.heads;
  let keyHeads = uniforms.keyValueHeads;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyLength + position;
}
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }

fn main(index : i32) {
  let slots = uniforms.outShape.y;
  let head = index / (8 * slots);
  let ofHead = index % (8 * slots);
  // Halves of 16 values, keys of a fragment, fragments of 16 keys, residues, tiles.
  let key16 = (ofHead / 2) % 16;
  let group = ofHead / (16 * 8);
  let part = 2 * ((ofHead / 32) % 4) + ofHead % 2;
  let slot = 64 * (group / 4) + 4 * key16 + group % 4;
  if (index >= uniforms.invocations) {
    return;
  }
  var packed = vec4<i32>(0);
  if (slot < uniforms.keyLength) {
    let row = keyRow(head, keyIndices[head * uniforms.keyLength + slot]);
    let a = readKey(row, 2 * part);
    let b = readKey(row, 2 * part + 1);
    packed = bitcast<vec4<i32>>(
      vec4<u32>(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw)));
  }
  result[index] = packed;
}
