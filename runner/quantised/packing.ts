import {BLOCK_TYPES} from '../gguf/block_types';
import {
  GROUP,
  isQuantised,
  QUANTISED_FORMS,
  type QuantisedForm,
  type QuantisedType,
  readBlocks,
  scaleWords,
} from '../gguf/block_values';
import type {PackedType} from './packed_type';

/** Blocks as they stand on the GPU: what groups are scaled with apart from the whole numbers, so that both lie aligned. */
export interface PackedValues {
  /** `bitsOf` words a group. The order of a group's values in them is that of `unpackText` (webgpu/unpack.ts). */
  quants: Int32Array;
  /** `scaleWords` a group; of plain types, a single 1 in float32. */
  scales: Int32Array;
}

/** Packs whole blocks of a type. Values of plain types stay as they are, in the buffer of `bytes` where they lie aligned. */
export function packBlocks(type: PackedType, bytes: Uint8Array): PackedValues {
  if (isQuantised(type)) return packQuantised(type, bytes);
  const {buffer, byteOffset, byteLength} = byteOffsetIsAligned(bytes) ? bytes : bytes.slice();
  return {
    quants: new Int32Array(buffer, byteOffset, byteLength / 4),
    scales: new Int32Array(Float32Array.of(1).buffer),
  };
}

const byteOffsetIsAligned = ({byteOffset}: Uint8Array): boolean => byteOffset % 4 === 0;

function packQuantised(type: QuantisedType, bytes: Uint8Array): PackedValues {
  const form = QUANTISED_FORMS[type];
  const {values, bytes: size} = BLOCK_TYPES[type];
  const groups = (bytes.length / size) * (values / GROUP);
  const quants = new Int32Array(groups * form.bits);
  const scales = new Int32Array(groups * scaleWords(form));
  // Without views of parts: there are millions of groups.
  readBlocks(type, bytes, (block, q, {words}) => {
    for (let i = 0; i < words.length; ++i) scales[block * words.length + i] = words[i];
    for (let from = 0; from < values; from += GROUP) {
      packGroup(form.bits, q, from, quants, ((block * values + from) / GROUP) * form.bits);
    }
  });
  return {quants, scales};
}

/**
 * The low four bits of values 8 i … 8 i + 3 are the low halves of the bytes of word i, of the four after them the high halves; the
 * fifth bits are one word, the fifth and sixth two, in order. Eight bits stand as bytes.
 */
function packGroup(bits: QuantisedForm['bits'], q: Uint8Array, from: number, words: Int32Array, at: number): void {
  if (bits === 8) {
    for (let i = 0; i < 8; ++i) {
      const j = from + 4 * i;
      words[at + i] = q[j] | (q[j + 1] << 8) | (q[j + 2] << 16) | (q[j + 3] << 24);
    }
    return;
  }
  for (let i = 0; i < 4; ++i) {
    let word = 0;
    for (let b = 0; b < 4; ++b) {
      const j = from + 8 * i + b;
      word |= ((q[j] & 15) | ((q[j + 4] & 15) << 4)) << (8 * b);
    }
    words[at + i] = word;
  }
  const high = bits - 4;
  for (let i = 0; i < high; ++i) {
    let word = 0;
    const values = GROUP / high;
    for (let j = 0; j < values; ++j) {
      word |= (q[from + i * values + j] >> 4) << (high * j);
    }
    words[at + 4 + i] = word;
  }
}
