import type {MatrixUnits} from '../../src/internal';

/** What NVIDIA's list first. */
export const UNITS: MatrixUnits = {rows: 16, columns: 16, depth: 16, lanes: 32};

/** Matrix units that adapters list, by name. */
export const MATRIX_UNITS: Record<string, MatrixUnits> = {
  '16 x 16 x 16': UNITS,
  '16 x 8 x 16': {...UNITS, columns: 8},
  '8 x 16 x 16': {...UNITS, rows: 8},
  '16 x 8 x 8': {...UNITS, columns: 8, depth: 8},
  '8 x 8 x 8': {...UNITS, rows: 8, columns: 8, depth: 8},
  '16 x 16 x 16, subgroups of 64': {...UNITS, lanes: 64},
};

/** Whether tests emulate all of them: for some of the programs each takes a compiler in software a minute. */
export const all = process.env.MATRIX_UNITS === 'all';

/** Those that tests emulate besides `UNITS`. */
export const OTHER_UNITS = Object.entries(MATRIX_UNITS).filter(
  ([name, units]) => units !== UNITS && (all || name === '8 x 8 x 8'),
);

/** Stand for fragments where there are no matrix units: every invocation holds all of them, and computes them. */
const fragments = ({rows, columns, depth}: MatrixUnits) => `
struct Left { values : array<f32, ${rows * depth}> };
struct Right { values : array<f32, ${depth * columns}> };
struct Result { values : array<f32, ${rows * columns}> };
fn multiplyAccumulate(a : Left, b : Right, c : Result) -> Result {
  var left = a;
  var right = b;
  var sums = c;
  for (var i = 0u; i < ${rows}u; i++) {
    for (var j = 0u; j < ${columns}u; j++) {
      var sum = sums.values[i * ${columns}u + j];
      for (var k = 0u; k < ${depth}u; k++) { sum += left.values[i * ${depth}u + k] * right.values[k * ${columns}u + j]; }
      sums.values[i * ${columns}u + j] = sum;
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

/** Shader text: a function by which invocations of a subgroup hand each other values of a type. All of a workgroup call it together. */
const exchange = (name: string, type: string) => `
var<workgroup> ${name}Values : array<${type}, 128>;
fn ${name}(x : ${type}, giver : u32) -> ${type} {
  workgroupBarrier();
  ${name}Values[localIndex] = x;
  workgroupBarrier();
  return ${name}Values[giver];
}`;
const exchanges = {exchange: 'f32', exchangePair: 'vec2<f32>', exchangePosition: 'i32'};

/** A value of an array that fragments are read from: of float32 in place of float16, or of words of two float16. */
const element = (array: string, isPacked: boolean) => (at: string) =>
  isPacked ? `unpack2x16float(bitcast<u32>(${array}[(${at}) / 2u]))[(${at}) % 2u]` : `${array}[${at}]`;

type Kind = 'left' | 'right' | 'result';
const structOf = {left: 'Left', right: 'Right', result: 'Result'} as const;

const shapeOf = ({rows, columns, depth}: MatrixUnits, kind: Kind): [rows: number, columns: number] =>
  kind === 'left' ? [rows, depth] : kind === 'right' ? [depth, columns] : [rows, columns];

function loadFunction(
  name: string,
  units: MatrixUnits,
  kind: Kind,
  isRowMajor: boolean,
  valueAt: (at: string) => string,
) {
  const [rows, columns] = shapeOf(units, kind);
  const [row, column] = isRowMajor ? ['stride', '1u'] : ['1u', 'stride'];
  return `
fn ${name}(at : u32, stride : u32) -> ${structOf[kind]} {
  var loaded : ${structOf[kind]};
  for (var i = 0u; i < ${rows}u; i++) {
    for (var j = 0u; j < ${columns}u; j++) {
      loaded.values[i * ${columns}u + j] = ${valueAt(`at + i * ${row} + j * ${column}`)};
    }
  }
  return loaded;
}`;
}

function storeFunction(name: string, {rows, columns, lanes}: MatrixUnits, isRowMajor: boolean, array: string) {
  const [row, column] = isRowMajor ? ['stride', '1u'] : ['1u', 'stride'];
  return `
fn ${name}(at : u32, given : Result, stride : u32) {
  var stored = given;
  // All invocations of a subgroup hold the same: each writes its share.
  for (var i = localIndex % ${lanes}u; i < ${rows * columns}u; i += ${lanes}u) {
    ${array}[at + i / ${columns}u * ${row} + i % ${columns}u * ${column}] = stored.values[i];
  }
}`;
}

/**
 * A shader that needs matrix units, float16 and subgroups, for a device without: the same but for what the extensions do. Arrays in
 * workgroup memory hold float32; the inputs named `packed`, which it reads as float16, are words of two.
 */
export function emulateMatrixUnits(text: string, units: MatrixUnits, packed: readonly string[] = []): string {
  const functions = new Map<string, string>();
  const emulated = text
    .replace(
      /subgroupMatrixLoad<subgroup_matrix_(left|right|result)<[^>]*>, (row|col)_major>\(&(\w+), /g,
      (_, kind: Kind, order: string, array: string) => {
        const name = `load_${kind}_${order}_${array}`;
        const valueAt = element(array, packed.includes(array));
        functions.set(name, loadFunction(name, units, kind, order === 'row', valueAt));
        return `${name}(`;
      },
    )
    .replace(/subgroupMatrixStore<(row|col)_major>\(&(\w+), /g, (_, order: string, array: string) => {
      const name = `store_${order}_${array}`;
      functions.set(name, storeFunction(name, units, order === 'row', array));
      return `${name}(`;
    })
    .replaceAll('subgroupMatrixMultiplyAccumulate(', 'multiplyAccumulate(')
    .replace(
      /subgroup_matrix_(left|right|result)<\w+, (\d+), (\d+)>/g,
      (type, kind: Kind, columns: string, rows: string) => {
        if (`${rows},${columns}` !== `${shapeOf(units, kind)}`)
          throw new Error(`${type} is no fragment of these units`);
        return structOf[kind];
      },
    )
    .replace(/subgroupShuffleXor\((select\(pending[^)]*\)), (\d+)u\)/g, 'exchangePair($1, localIndex ^ $2u)')
    .replace(/subgroupShuffleXor\((\w+|select\([^)]*\)), (\d+)u\)/g, 'exchange($1, localIndex ^ $2u)')
    .replace(
      /subgroupShuffle\((\w+), (\d+)u\)/g,
      `exchangePosition($1, localIndex / ${units.lanes}u * ${units.lanes}u + $2u)`,
    )
    .replaceAll('bitcast<vec4<f16>>(', 'float16Values(')
    .replaceAll('array<f16, ', 'array<f32, ')
    .replace(/\bf16\(/g, 'rounded(');
  const called = Object.entries(exchanges).filter(([name]) => emulated.includes(`${name}(`));
  const parts = [
    fragments(units),
    ...called.map(([name, type]) => exchange(name, type)),
    ...functions.values(),
    emulated,
  ];
  return parts.join('\n');
}
