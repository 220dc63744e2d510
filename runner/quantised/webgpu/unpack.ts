import {unroll} from '../../../src/internal';
import {
  isQuantised,
  QUANTISED_FORMS,
  type QuantisedForm,
  type QuantisedType,
  scaleWords,
} from '../../gguf/block_values';
import {bitsOf, type PackedType, type PlainType} from '../packed_type';

/**
 * Shader text: `scaleOf(group)`, scale and offset of a group, and `unpack4(group, part, scale)`, its values 4 part … 4 part + 3 (see
 * `packing.ts`). Reads the inputs `quants` and `scales`.
 */
export function unpackText(type: PackedType): string {
  return isQuantised(type) ? unpackQuantised(type) : unpackPlain(type);
}

function unpackPlain(type: PlainType): string {
  const word = (i: number) => `bitcast<u32>(quants[at + ${i}])`;
  // bfloat16 is the upper half of a float32.
  const pair = (i: number) =>
    type === 'F16'
      ? `unpack2x16float(${word(i)})`
      : `bitcast<vec2<f32>>(vec2<u32>(${word(i)} << 16u, ${word(i)} & 0xffff0000u))`;
  const values =
    type === 'F32' ? `bitcast<vec4<f32>>(vec4<u32>(${unroll(4, word, ', ')}))` : `vec4<f32>(${pair(0)}, ${pair(1)})`;
  return `
fn scaleOf(group : i32) -> vec2<f32> {
  return vec2<f32>(bitcast<f32>(scales[0]));
}

fn unpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * ${bitsOf(type)} + part * ${bitsOf(type) / 8};
  return scale.x * ${values};
}`;
}

function unpackQuantised(type: QuantisedType): string {
  const form = QUANTISED_FORMS[type];
  const {bits, zero} = form;
  return `
fn scaleOf(group : i32) -> vec2<f32> {
  ${scaleText(form)}
}

fn unpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * ${bits};
  ${bits === 8 ? 'let q = bytesOf(quants[at + part]) & vec4<u32>(255u);' : lowBits(bits)}
  ${
    zero === undefined
      ? 'return fma(vec4<f32>(scale.x), vec4<f32>(q), vec4<f32>(scale.y));'
      : `return ${form.scales === 'float32 of 16' ? 'select(scale.x, scale.y, part >= 4)' : 'scale.x'} * (vec4<f32>(q) - ${zero}.0);`
  }
}

// A word moved down by 0, 8, 16 and 24 bits.
fn bytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}`;
}

function scaleText(form: QuantisedForm): string {
  const words = scaleWords(form);
  return words === 1
    ? 'return unpack2x16float(bitcast<u32>(scales[group]));'
    : `return bitcast<vec2<f32>>(vec2<i32>(${unroll(words, (i) => `scales[2 * group + ${i}]`, ', ')}));`;
}

/** Four bits of words 0 to 3; fifth and sixth bits of those after them. */
function lowBits(bits: 4 | 5 | 6): string {
  const low = 'bytesOf(quants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u)';
  if (bits === 4) return `let q = ${low};`;
  const high = bits - 4;
  // Bits of 4 values in a row; a word has those of 32 or 16.
  const partsOfWord = 8 / high;
  return `let high = bitcast<u32>(quants[at + 4 + part / ${partsOfWord}]) >> u32(${4 * high} * (part % ${partsOfWord}));
  let q = (${low}) |
    (((vec4<u32>(high) >> vec4<u32>(0u, ${high}u, ${2 * high}u, ${3 * high}u)) & vec4<u32>(${2 ** high - 1}u)) << vec4<u32>(4u));`;
}
