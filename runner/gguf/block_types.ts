/** A tensor is a row of blocks, each of so many values in so many bytes. */
export interface BlockShape {
  /** How a file names the type: `enum ggml_type` of ggml.h. */
  readonly number: number;
  readonly values: number;
  readonly bytes: number;
}

/** The types that are read, in ggml's order; `dequantise.ts` has what is in a block. */
export const BLOCK_TYPES = {
  F32: {number: 0, values: 1, bytes: 4},
  F16: {number: 1, values: 1, bytes: 2},
  Q4_0: {number: 2, values: 32, bytes: 18},
  Q4_1: {number: 3, values: 32, bytes: 20},
  Q5_0: {number: 6, values: 32, bytes: 22},
  Q5_1: {number: 7, values: 32, bytes: 24},
  Q8_0: {number: 8, values: 32, bytes: 34},
  Q4_K: {number: 12, values: 256, bytes: 144},
  Q5_K: {number: 13, values: 256, bytes: 176},
  Q6_K: {number: 14, values: 256, bytes: 210},
  BF16: {number: 30, values: 1, bytes: 2},
} as const satisfies Record<string, BlockShape>;

export type BlockType = keyof typeof BLOCK_TYPES;

/** Types of ggml that are not read, so that they can be refused by name. */
const OTHER_TYPES: ReadonlyMap<number, string> = new Map([
  [9, 'Q8_1'],
  [10, 'Q2_K'],
  [11, 'Q3_K'],
  [15, 'Q8_K'],
  [16, 'IQ2_XXS'],
  [17, 'IQ2_XS'],
  [18, 'IQ3_XXS'],
  [19, 'IQ1_S'],
  [20, 'IQ4_NL'],
  [21, 'IQ3_S'],
  [22, 'IQ2_S'],
  [23, 'IQ4_XS'],
  [24, 'I8'],
  [25, 'I16'],
  [26, 'I32'],
  [27, 'I64'],
  [28, 'F64'],
  [29, 'IQ1_M'],
  [34, 'TQ1_0'],
  [35, 'TQ2_0'],
  [39, 'MXFP4'],
  [40, 'NVFP4'],
  [41, 'Q1_0'],
  [42, 'Q2_0'],
]);

/** Types that ggml had once and reads no more. */
const REMOVED_TYPES: ReadonlyMap<number, string> = new Map([
  [4, 'Q4_2'],
  [5, 'Q4_3'],
  [31, 'Q4_0_4_4'],
  [32, 'Q4_0_4_8'],
  [33, 'Q4_0_8_8'],
  [36, 'IQ4_NL_4_4'],
  [37, 'IQ4_NL_4_8'],
  [38, 'IQ4_NL_8_8'],
]);

const TYPE_OF_NUMBER: ReadonlyMap<number, BlockType> = new Map(
  Object.entries(BLOCK_TYPES).map(([name, {number}]) => [number, name as BlockType]),
);

/** The type with this number, or undefined if it is not read; `describeType` says which it is. */
export function blockTypeOf(number: number): BlockType | undefined {
  return TYPE_OF_NUMBER.get(number);
}

/** For errors: a type's name, if ggml has or had one, and its number. */
export function describeType(number: number): string {
  const removed = REMOVED_TYPES.get(number);
  if (removed !== undefined) return `${removed} (${number}), removed from ggml`;
  const name = TYPE_OF_NUMBER.get(number) ?? OTHER_TYPES.get(number);
  return name === undefined ? `the unknown ${number}` : `${name} (${number})`;
}
