import {rowComponents} from './rows.js';

/**
 * Shader text: `packedFloat16(x)`, four values as two words of float16. Finite numbers that float16 does not reach become the largest that
 * it has. Infinities and NaN stay so, by their bits: compilers may take it that there are none, and packing says nothing of them.
 */
export const packFloat16 = `
fn packedFloat16(x : vec4<f32>) -> vec2<u32> {
  let bits = bitcast<vec4<u32>>(x);
  let isFinite = (bits & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
  let y = select(vec4<f32>(0.0), clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), isFinite);
  let fraction = select(vec4<u32>(0u), vec4<u32>(0x200u), (bits & vec4<u32>(0x7fffffu)) != vec4<u32>(0u));
  let others = select(((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u)) | vec4<u32>(0x7c00u) | fraction, vec4<u32>(0u), isFinite);
  return vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw)) | others.xz | (others.yw << vec2<u32>(16u));
}`;

/**
 * As `readRow`, of rows that are packed: two float16 a word, as `PackFloat16` writes them.
 *
 * @param first expression: the element of `tensor` at which its rows start.
 */
export function readPackedRow(name: string, tensor: string, headDim: number, first?: string): string {
  const words = headDim / 2;
  const read = `fn ${name}(row : i32, vector : i32) -> vec4<f32>`;
  const start = first ? `${first} + ` : '';
  if (rowComponents(words) === 4) {
    return `${read} {
  let words = bitcast<vec4<u32>>(${tensor}[${start}row * ${words / 4} + vector / 2]);
  let pairs = select(words.xy, words.zw, vector % 2 == 1);
  return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}`;
  }
  const pair = (i: number) => {
    const value = `unpack2x16float(bitcast<u32>(${tensor}[${start}row * ${words} + 2 * vector + ${i}]))`;
    return words % 2 === 0 ? value : `select(vec2<f32>(), ${value}, 2 * vector + ${i} < ${words})`;
  };
  return `${read} { return vec4<f32>(${pair(0)}, ${pair(1)}); }`;
}
