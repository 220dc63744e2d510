import {float16Table} from '../float16';
import {BLOCK_TYPES} from './block_types';

/** The quantised types, by ggml's names; their layouts are those of `dequantize_row_*` in ggml-quants.c. */
export const QUANTISED_TYPES = ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q4_K', 'Q5_K', 'Q6_K'] as const;
export type QuantisedType = (typeof QUANTISED_TYPES)[number];
export const isQuantised = (type: string): type is QuantisedType => QUANTISED_TYPES.includes(type as QuantisedType);

/** Values of a group: a block is one of them, or eight. */
export const GROUP = 32;

/**
 * What a value is made of: a whole number q from 0 on of `bits` bits, and what its group is scaled with. It is
 * `scale · (q − zero)`, or `scale · q + offset` where there is no zero.
 */
export interface QuantisedForm {
  bits: 4 | 5 | 6 | 8;
  zero?: number;
  /**
   * Scale and offset of a group as two float16 in a word, or as two float32, where float16 would round them; or the scales of its
   * first and second 16 values as float32.
   */
  scales: 'float16' | 'float32' | 'float32 of 16';
}

export const QUANTISED_FORMS: Readonly<Record<QuantisedType, QuantisedForm>> = {
  Q4_0: {bits: 4, zero: 8, scales: 'float16'},
  Q4_1: {bits: 4, scales: 'float16'},
  Q5_0: {bits: 5, zero: 16, scales: 'float16'},
  Q5_1: {bits: 5, scales: 'float16'},
  Q8_0: {bits: 8, zero: 128, scales: 'float16'},
  Q4_K: {bits: 4, scales: 'float32'},
  Q5_K: {bits: 5, scales: 'float32'},
  Q6_K: {bits: 6, zero: 32, scales: 'float32 of 16'},
};

/** Words of a group's scales. */
export const scaleWords = ({scales}: QuantisedForm): number => (scales === 'float16' ? 1 : 2);

/** Scales of a block's groups, as words and as the float32 in them: two views of the same bytes. */
interface Scales {
  words: Int32Array;
  floats: Float32Array;
}

/**
 * Reads whole blocks, one after the other: `use` gets the number of a block, its whole numbers in the order of the values, and the
 * scales of its groups. The arrays are used again for the next block.
 */
export function readBlocks(
  type: QuantisedType,
  bytes: Uint8Array,
  use: (block: number, q: Uint8Array, scales: Scales) => void,
): void {
  const {values, bytes: size} = BLOCK_TYPES[type];
  const q = new Uint8Array(values);
  const words = new Int32Array((values / GROUP) * scaleWords(QUANTISED_FORMS[type]));
  const scales = {words, floats: new Float32Array(words.buffer)};
  for (let block = 0; block < bytes.length / size; ++block) {
    READ_BLOCK[type](bytes, block * size, q, scales);
    use(block, q, scales);
  }
}

const uint16 = (bytes: Uint8Array, at: number): number => bytes[at] | (bytes[at + 1] << 8);
const int32 = (bytes: Uint8Array, at: number): number => uint16(bytes, at) | (uint16(bytes, at + 2) << 16);

type ReadBlock = (bytes: Uint8Array, at: number, q: Uint8Array, scales: Scales) => void;

/** 4 bits of 32 values: those of the first 16 are the low halves of the bytes, those of the others the high ones. */
function readNibbles(bytes: Uint8Array, at: number, q: Uint8Array): void {
  for (let j = 0; j < 16; ++j) {
    const byte = bytes[at + j];
    q[j] = byte & 15;
    q[j + 16] = byte >> 4;
  }
}

/** Their fifth bits, in order. */
function readFifthBits(bytes: Uint8Array, at: number, q: Uint8Array): void {
  const bits = int32(bytes, at);
  for (let j = 0; j < 32; ++j) q[j] |= ((bits >>> j) & 1) << 4;
}

/** Scales of 8 groups of a block of K types: 6 bits each, of the scale and of the minimum (`get_scale_min_k4`). */
function readSixBits(bytes: Uint8Array, at: number, group: number): [scale: number, minimum: number] {
  const byte = (i: number) => bytes[at + i];
  if (group < 4) return [byte(group) & 63, byte(group + 4) & 63];
  return [(byte(group + 4) & 15) | ((byte(group - 4) >> 6) << 4), (byte(group + 4) >> 4) | ((byte(group) >> 6) << 4)];
}

/** `d`, `dmin` and the six-bit scales of a block of K types, as scale and offset of each of its 8 groups. */
function readGroupScales(bytes: Uint8Array, at: number, {floats}: Scales): void {
  const scale = float16Table()[uint16(bytes, at)];
  const minimum = float16Table()[uint16(bytes, at + 2)];
  for (let group = 0; group < 8; ++group) {
    const [s, m] = readSixBits(bytes, at + 4, group);
    floats[2 * group] = scale * s;
    floats[2 * group + 1] = -minimum * m;
  }
}

const READ_BLOCK: Readonly<Record<QuantisedType, ReadBlock>> = {
  Q4_0: (bytes, at, q, {words}) => {
    words[0] = uint16(bytes, at);
    readNibbles(bytes, at + 2, q);
  },
  Q4_1: (bytes, at, q, {words}) => {
    words[0] = int32(bytes, at);
    readNibbles(bytes, at + 4, q);
  },
  Q5_0: (bytes, at, q, {words}) => {
    words[0] = uint16(bytes, at);
    readNibbles(bytes, at + 6, q);
    readFifthBits(bytes, at + 2, q);
  },
  Q5_1: (bytes, at, q, {words}) => {
    words[0] = int32(bytes, at);
    readNibbles(bytes, at + 8, q);
    readFifthBits(bytes, at + 4, q);
  },
  Q8_0: (bytes, at, q, {words}) => {
    words[0] = uint16(bytes, at);
    for (let j = 0; j < 32; ++j) q[j] = bytes[at + 2 + j] ^ 128;
  },
  Q4_K: (bytes, at, q, scales) => {
    readGroupScales(bytes, at, scales);
    for (let i = 0; i < 128; ++i) {
      const byte = bytes[at + 16 + i];
      const first = 64 * (i >> 5) + (i & 31);
      q[first] = byte & 15;
      q[first + 32] = byte >> 4;
    }
  },
  Q5_K: (bytes, at, q, scales) => {
    readGroupScales(bytes, at, scales);
    for (let i = 0; i < 128; ++i) {
      const byte = bytes[at + 48 + i];
      const high = bytes[at + 16 + (i & 31)] >> (2 * (i >> 5));
      const first = 64 * (i >> 5) + (i & 31);
      q[first] = (byte & 15) | ((high & 1) << 4);
      q[first + 32] = (byte >> 4) | ((high & 2) << 3);
    }
  },
  Q6_K: (bytes, at, q, {floats}) => {
    const scale = float16Table()[uint16(bytes, at + 208)];
    for (let i = 0; i < 16; ++i) floats[i] = scale * ((bytes[at + 192 + i] << 24) >> 24);
    for (let half = 0; half < 2; ++half) {
      for (let i = 0; i < 32; ++i) {
        const [a, b] = [bytes[at + 64 * half + i], bytes[at + 64 * half + 32 + i]];
        const high = bytes[at + 128 + 32 * half + i];
        const first = 128 * half + i;
        q[first] = (a & 15) | ((high & 3) << 4);
        q[first + 32] = (b & 15) | (((high >> 2) & 3) << 4);
        q[first + 64] = (a >> 4) | (((high >> 4) & 3) << 4);
        q[first + 96] = (b >> 4) | ((high >> 6) << 4);
      }
    }
  },
};
