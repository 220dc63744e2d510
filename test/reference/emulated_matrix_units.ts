import {fragment, subgroupSize} from '../../src/internal';

/** Stands for a fragment where there are no matrix units: every invocation holds all of it, and computes it. */
const fragments = `
struct Fragment { values : array<f32, ${fragment * fragment}> };
fn multiplyAccumulate(a : Fragment, b : Fragment, c : Fragment) -> Fragment {
  var left = a;
  var right = b;
  var sums = c;
  for (var i = 0u; i < ${fragment}u; i++) {
    for (var j = 0u; j < ${fragment}u; j++) {
      var sum = sums.values[i * ${fragment}u + j];
      for (var k = 0u; k < ${fragment}u; k++) { sum += left.values[i * ${fragment}u + k] * right.values[k * ${fragment}u + j]; }
      sums.values[i * ${fragment}u + j] = sum;
    }
  }
  return sums;
}
fn float16Values(words : vec2<i32>) -> vec4<f32> {
  let bits = bitcast<vec2<u32>>(words);
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
fn rounded(x : f32) -> f32 {
  return unpack2x16float(pack2x16float(vec2<f32>(x, 0.0))).x;
}`;

/** What neighbouring invocations hand each other. All of a workgroup call it together. */
const exchange = `
var<workgroup> exchanged : array<f32, 1024>;
fn exchange(x : f32) -> f32 {
  workgroupBarrier();
  exchanged[localIndex] = x;
  workgroupBarrier();
  return exchanged[localIndex ^ 1u];
}`;

/** A value of an array that fragments are read from: of float32 in place of float16, or of words of two float16. */
const element = (array: string, isPacked: boolean) => (at: string) =>
  isPacked ? `unpack2x16float(bitcast<u32>(${array}[(${at}) / 2u]))[(${at}) % 2u]` : `${array}[${at}]`;

function loadFunction(name: string, array: string, isPacked: boolean): string {
  const [row, column] = name.includes('row_major') ? ['stride', '1u'] : ['1u', 'stride'];
  return `
fn ${name}(at : u32, stride : u32) -> Fragment {
  var loaded : Fragment;
  for (var i = 0u; i < ${fragment}u; i++) {
    for (var j = 0u; j < ${fragment}u; j++) {
      loaded.values[i * ${fragment}u + j] = ${element(array, isPacked)(`at + i * ${row} + j * ${column}`)};
    }
  }
  return loaded;
}`;
}

const storeFunction = (name: string, array: string) => `
fn ${name}(at : u32, given : Fragment, stride : u32) {
  var stored = given;
  // All invocations of a subgroup hold the same: each writes its share.
  for (var i = localIndex % ${subgroupSize}u; i < ${fragment * fragment}u; i += ${subgroupSize}u) {
    ${array}[at + i / ${fragment}u * stride + i % ${fragment}u] = stored.values[i];
  }
}`;

/**
 * A shader that needs matrix units, float16 and subgroups, for a device without: the same but for what the extensions do. Arrays in
 * workgroup memory hold float32; the inputs named `packed`, which it reads as float16, are words of two.
 */
export function emulateMatrixUnits(text: string, packed: readonly string[] = []): string {
  const functions = new Map<string, string>();
  const emulated = text
    .replace(/subgroupMatrixLoad<[^>]*>, (\w+)>\(&(\w+), /g, (_, order: string, array: string) => {
      const name = `load_${order}_${array}`;
      functions.set(name, loadFunction(name, array, packed.includes(array)));
      return `${name}(`;
    })
    .replace(/subgroupMatrixStore<row_major>\(&(\w+), /g, (_, array: string) => {
      functions.set(`store_${array}`, storeFunction(`store_${array}`, array));
      return `store_${array}(`;
    })
    .replaceAll('subgroupMatrixMultiplyAccumulate(', 'multiplyAccumulate(')
    .replace(/subgroup_matrix_\w+<\w+, \d+, \d+>/g, 'Fragment')
    .replace(/subgroupShuffleXor\((\w+), 1u\)/g, 'exchange($1)')
    .replaceAll('bitcast<vec4<f16>>(', 'float16Values(')
    .replaceAll('array<f16, ', 'array<f32, ')
    .replace(/\bf16\(/g, 'rounded(');
  return [fragments, emulated.includes('exchange(') ? exchange : '', ...functions.values(), emulated].join('\n');
}
