import {float16Table} from '../float16';
import {BLOCK_TYPES} from '../gguf/block_types';

/** Types of GGUF whose values stay packed on the GPU; by ggml's names (ggml-quants.c). */
export const PACKED_TYPES = ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q4_K', 'Q5_K', 'Q6_K'] as const;
export type PackedType = (typeof PACKED_TYPES)[number];
export const isPackedType = (type: string): type is PackedType => PACKED_TYPES.includes(type as PackedType);

/** Values of a group, the unit of packing. */
export const GROUP = 32;

/**
 * How a type is packed: `bits` words of whole numbers q from 0 on a group, and what a group is scaled with apart, so that both lie
 * aligned. A value is `scale · (q − zero)`, or `scale · q + offset` where there is no zero.
 */
export interface PackedForm {
  bits: 4 | 5 | 6 | 8;
  zero?: number;
  /**
   * Scale and offset of a group as two float16 in a word, or as two float32, where float16 would round them; or the scales of its
   * first and second 16 values as float32.
   */
  scales: 'float16' | 'float32' | 'float32 of 16';
}

export const PACKED_FORMS: Record<PackedType, PackedForm> = {
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
export const scaleWords = ({scales}: PackedForm): number => (scales === 'float16' ? 1 : 2);

/** Bytes of a row of so many values; whole where they are whole blocks. */
export const rowBytes = (type: PackedType, values: number): number =>
  (values / BLOCK_TYPES[type].values) * BLOCK_TYPES[type].bytes;

export interface PackedValues {
  /** `bits` words a group. The order of a group's values in them is that of `unpackText` (webgpu/unpack.ts). */
  quants: Int32Array;
  scales: Int32Array;
}

/** Packs whole blocks of a type. */
export function packBlocks(type: PackedType, bytes: Uint8Array): PackedValues {
  const form = PACKED_FORMS[type];
  const {values, bytes: size} = BLOCK_TYPES[type];
  const blocks = bytes.length / size;
  const groupsOfBlock = values / GROUP;
  const words = scaleWords(form);
  const quants = new Int32Array(blocks * groupsOfBlock * form.bits);
  const scales = new Int32Array(blocks * groupsOfBlock * words);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const q = new Uint8Array(values);
  for (let block = 0; block < blocks; ++block) {
    const first = block * groupsOfBlock;
    readBlock[type](view, block * size, q, scales.subarray(first * words, (first + groupsOfBlock) * words));
    for (let group = 0; group < groupsOfBlock; ++group) {
      const of = quants.subarray((first + group) * form.bits);
      packGroup(form.bits, q.subarray(group * GROUP, (group + 1) * GROUP), of);
    }
  }
  return {quants, scales};
}

/**
 * The low four bits of values 8 i … 8 i + 3 are the low halves of the bytes of word i, of the four after them the high halves; the
 * fifth bits are one word, the fifth and sixth two, in order. Eight bits stand as bytes.
 */
function packGroup(bits: PackedForm['bits'], q: Uint8Array, words: Int32Array): void {
  if (bits === 8) {
    for (let i = 0; i < 8; ++i) {
      words[i] = q[4 * i] | (q[4 * i + 1] << 8) | (q[4 * i + 2] << 16) | (q[4 * i + 3] << 24);
    }
    return;
  }
  for (let i = 0; i < 4; ++i) {
    let word = 0;
    for (let b = 0; b < 4; ++b) {
      word |= ((q[8 * i + b] & 15) | ((q[8 * i + 4 + b] & 15) << 4)) << (8 * b);
    }
    words[i] = word;
  }
  const high = bits - 4;
  for (let i = 0; i < high; ++i) {
    let word = 0;
    const values = GROUP / high;
    for (let j = 0; j < values; ++j) {
      word |= (q[i * values + j] >> 4) << (high * j);
    }
    words[4 + i] = word;
  }
}

/** Reads the whole numbers of a block, and its scales as they are packed. */
type ReadBlock = (view: DataView, at: number, q: Uint8Array, scales: Int32Array) => void;

const float = new Float32Array(1);
const bitsOfFloat = new Int32Array(float.buffer);
function float32Bits(x: number): number {
  float[0] = x;
  return bitsOfFloat[0];
}

/** 4 bits of 32 values: those of the first 16 are the low halves of the bytes, those of the others the high ones. */
function readNibbles(view: DataView, at: number, q: Uint8Array): void {
  for (let j = 0; j < 16; ++j) {
    const byte = view.getUint8(at + j);
    q[j] = byte & 15;
    q[j + 16] = byte >> 4;
  }
}

/** Their fifth bits, in order. */
function readFifthBits(view: DataView, at: number, q: Uint8Array): void {
  const bits = view.getUint32(at, true);
  for (let j = 0; j < 32; ++j) q[j] |= ((bits >>> j) & 1) << 4;
}

/** Scales of 8 groups of a block of K types: 6 bits each, of the scale and of the minimum (`get_scale_min_k4`). */
function readSixBits(view: DataView, at: number, group: number): [scale: number, minimum: number] {
  const byte = (i: number) => view.getUint8(at + i);
  if (group < 4) return [byte(group) & 63, byte(group + 4) & 63];
  return [(byte(group + 4) & 15) | ((byte(group - 4) >> 6) << 4), (byte(group + 4) >> 4) | ((byte(group) >> 6) << 4)];
}

/** `d`, `dmin` and the six-bit scales of a block of K types, as scale and offset of each of its 8 groups. */
function readGroupScales(view: DataView, at: number, scales: Int32Array): void {
  const scale = float16Table()[view.getUint16(at, true)];
  const minimum = float16Table()[view.getUint16(at + 2, true)];
  for (let group = 0; group < 8; ++group) {
    const [s, m] = readSixBits(view, at + 4, group);
    scales[2 * group] = float32Bits(scale * s);
    scales[2 * group + 1] = float32Bits(-minimum * m);
  }
}

const readBlock: Record<PackedType, ReadBlock> = {
  Q4_0: (view, at, q, scales) => {
    scales[0] = view.getUint16(at, true);
    readNibbles(view, at + 2, q);
  },
  Q4_1: (view, at, q, scales) => {
    scales[0] = view.getInt32(at, true);
    readNibbles(view, at + 4, q);
  },
  Q5_0: (view, at, q, scales) => {
    scales[0] = view.getUint16(at, true);
    readNibbles(view, at + 6, q);
    readFifthBits(view, at + 2, q);
  },
  Q5_1: (view, at, q, scales) => {
    scales[0] = view.getInt32(at, true);
    readNibbles(view, at + 8, q);
    readFifthBits(view, at + 4, q);
  },
  Q8_0: (view, at, q, scales) => {
    scales[0] = view.getUint16(at, true);
    for (let j = 0; j < 32; ++j) q[j] = view.getInt8(at + 2 + j) + 128;
  },
  Q4_K: (view, at, q, scales) => {
    readGroupScales(view, at, scales);
    for (let i = 0; i < 128; ++i) {
      const byte = view.getUint8(at + 16 + i);
      const first = 64 * (i >> 5) + (i & 31);
      q[first] = byte & 15;
      q[first + 32] = byte >> 4;
    }
  },
  Q5_K: (view, at, q, scales) => {
    readGroupScales(view, at, scales);
    for (let i = 0; i < 128; ++i) {
      const byte = view.getUint8(at + 48 + i);
      const high = view.getUint8(at + 16 + (i & 31)) >> (2 * (i >> 5));
      const first = 64 * (i >> 5) + (i & 31);
      q[first] = (byte & 15) | ((high & 1) << 4);
      q[first + 32] = (byte >> 4) | ((high & 2) << 3);
    }
  },
  Q6_K: (view, at, q, scales) => {
    const scale = float16Table()[view.getUint16(at + 208, true)];
    for (let i = 0; i < 16; ++i) scales[i] = float32Bits(scale * view.getInt8(at + 192 + i));
    for (let half = 0; half < 2; ++half) {
      for (let i = 0; i < 32; ++i) {
        const [a, b] = [view.getUint8(at + 64 * half + i), view.getUint8(at + 64 * half + 32 + i)];
        const high = view.getUint8(at + 128 + 32 * half + i);
        const first = 128 * half + i;
        q[first] = (a & 15) | ((high & 3) << 4);
        q[first + 32] = (b & 15) | (((high >> 2) & 3) << 4);
        q[first + 64] = (a >> 4) | (((high >> 4) & 3) << 4);
        q[first + 96] = (b >> 4) | ((high >> 6) << 4);
      }
    }
  },
};
