import {float16Table} from '../float16';
import {BLOCK_TYPES, type BlockType} from './block_types';

/**
 * Writes the values of whole blocks as float32, with the bits that ggml's C code gives
 * (`dequantize_row_*` of ggml-quants.c, whose layouts these are).
 *
 * That code computes in float32, this one in float64 with one rounding at the end. Both give the same: a half-precision
 * scale has 11 significant bits, and times integers of up to 13 bits it is exact in float32; what remains is at most one
 * addition, which is exact in float64.
 *
 * @param bytes whole blocks of `type`, at any offset in their buffer.
 * @param values as many as the blocks hold; overwritten.
 */
export function dequantise(type: BlockType, bytes: Uint8Array, values: Float32Array): void {
  const block = BLOCK_TYPES[type];
  const blocks = bytes.length / block.bytes;
  if (!Number.isInteger(blocks) || values.length !== blocks * block.values) {
    throw new Error(
      `${type}: ${bytes.length} bytes for ${values.length} values; accepted: ` +
        `${block.bytes} bytes for each ${block.values} values`,
    );
  }
  DEQUANTISE[type](bytes, values);
}

const DEQUANTISE: Record<BlockType, (bytes: Uint8Array, values: Float32Array) => void> = {
  F32(bytes, values) {
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength).set(bytes);
  },
  F16(bytes, values) {
    const float16 = float16Table();
    for (let i = 0; i < values.length; ++i) values[i] = float16[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
  },
  BF16(bytes, values) {
    // bfloat16 is the upper half of a float32; as bits, since an assignment of a NaN may change it.
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < values.length; ++i) bits[i] = (bytes[2 * i] << 16) | (bytes[2 * i + 1] << 24);
  },
  Q4_0: (bytes, values) => dequantise32(bytes, values, {bytes: 18, offset: -8, minimum: false, fifthBits: false}),
  Q4_1: (bytes, values) => dequantise32(bytes, values, {bytes: 20, offset: 0, minimum: true, fifthBits: false}),
  Q5_0: (bytes, values) => dequantise32(bytes, values, {bytes: 22, offset: -16, minimum: false, fifthBits: true}),
  Q5_1: (bytes, values) => dequantise32(bytes, values, {bytes: 24, offset: 0, minimum: true, fifthBits: true}),
  Q8_0: dequantiseQ8_0,
  Q4_K: (bytes, values) => dequantiseWithMinima(bytes, values, BLOCK_TYPES.Q4_K.bytes),
  Q5_K: (bytes, values) => dequantiseWithMinima(bytes, values, BLOCK_TYPES.Q5_K.bytes),
  Q6_K: dequantiseQ6_K,
};

/**
 * Blocks of 32: scale (F16), minimum (F16) if there is one, the fifth bits of all values (uint32) if there are, then 16
 * bytes with the low 4 bits: value j in the lower half of byte j, value j + 16 in the upper.
 */
function dequantise32(
  bytes: Uint8Array,
  values: Float32Array,
  block: {bytes: number; offset: number; minimum: boolean; fifthBits: boolean},
): void {
  const float16 = float16Table();
  for (let from = 0, to = 0; from < bytes.length; from += block.bytes, to += 32) {
    const scale = float16[bytes[from] | (bytes[from + 1] << 8)];
    let at = from + 2;
    // Without a minimum there is none to add: -0 must stay -0, as -0 + 0 would not.
    let minimum = -0;
    if (block.minimum) {
      minimum = float16[bytes[at] | (bytes[at + 1] << 8)];
      at += 2;
    }
    let fifth = 0;
    if (block.fifthBits) {
      fifth = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
      at += 4;
    }
    for (let j = 0; j < 16; ++j) {
      const low = (bytes[at + j] & 15) | (((fifth >>> j) & 1) << 4);
      const high = (bytes[at + j] >> 4) | (((fifth >>> (j + 16)) & 1) << 4);
      values[to + j] = (low + block.offset) * scale + minimum;
      values[to + j + 16] = (high + block.offset) * scale + minimum;
    }
  }
}

/** Blocks of 32: scale (F16), 32 int8. */
function dequantiseQ8_0(bytes: Uint8Array, values: Float32Array): void {
  const float16 = float16Table();
  for (let from = 0, to = 0; from < bytes.length; from += 34, to += 32) {
    const scale = float16[bytes[from] | (bytes[from + 1] << 8)];
    for (let j = 0; j < 32; ++j) values[to + j] = ((bytes[from + 2 + j] << 24) >> 24) * scale;
  }
}

/**
 * Q4_K and Q5_K, blocks of 256 in eight groups of 32: scale of the scales and scale of the minima (F16), 12 bytes with
 * eight scales and eight minima of 6 bits, in Q5_K 32 bytes of fifth bits (group g in bit g of byte j), then 128 bytes
 * with the low 4 bits: groups 2k and 2k + 1 in the lower and upper halves of bytes 32 k .. 32 k + 31.
 */
function dequantiseWithMinima(bytes: Uint8Array, values: Float32Array, blockBytes: 144 | 176): void {
  const float16 = float16Table();
  const fifthBits = blockBytes === BLOCK_TYPES.Q5_K.bytes;
  for (let from = 0, to = 0; from < bytes.length; from += blockBytes, to += 256) {
    const scaleOfScales = float16[bytes[from] | (bytes[from + 1] << 8)];
    const scaleOfMinima = float16[bytes[from + 2] | (bytes[from + 3] << 8)];
    const scales = from + 4;
    const fifths = from + 16;
    const lows = fifthBits ? fifths + 32 : fifths;
    for (let group = 0; group < 8; ++group) {
      const scale = scaleOfScales * sixBits(bytes, scales, group, 0);
      const minimum = scaleOfMinima * sixBits(bytes, scales, group, 4);
      const at = lows + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let j = 0; j < 32; ++j) {
        const fifth = fifthBits ? ((bytes[fifths + j] >> group) & 1) << 4 : 0;
        values[to + 32 * group + j] = scale * (((bytes[at + j] >> shift) & 15) | fifth) - minimum;
      }
    }
  }
}

/**
 * Scale (`half` 0) or minimum (`half` 4) of a group. Those of groups 0 to 3 are the low 6 bits of bytes 0 to 7; those of
 * groups 4 to 7 have their low 4 bits in bytes 8 to 11, scales in the lower halves, and their high 2 in bytes 0 to 7.
 */
function sixBits(bytes: Uint8Array, at: number, group: number, half: 0 | 4): number {
  if (group < 4) return bytes[at + half + group] & 63;
  const low = (bytes[at + 4 + group] >> half) & 15;
  return low | ((bytes[at + half + group - 4] >> 6) << 4);
}

/**
 * Blocks of 256 in two halves: 128 bytes with the low 4 bits, 64 bytes with the high 2 bits, 16 int8 scales of 16 values
 * each, the scale of the scales (F16).
 */
function dequantiseQ6_K(bytes: Uint8Array, values: Float32Array): void {
  const float16 = float16Table();
  for (let from = 0, to = 0; from < bytes.length; from += 210, to += 256) {
    const scaleOfScales = float16[bytes[from + 208] | (bytes[from + 209] << 8)];
    for (let row = 0; row < 8; ++row) {
      // A row is 32 values; a half of the block has four.
      const half = row >> 2;
      const low = from + 64 * half + 32 * (row & 1);
      const lowShift = row & 2 ? 4 : 0;
      const high = from + 128 + 32 * half;
      const highShift = 2 * (row & 3);
      for (let j = 0; j < 32; ++j) {
        const scale = (bytes[from + 192 + 2 * row + (j >> 4)] << 24) >> 24;
        const quant = ((bytes[low + j] >> lowShift) & 15) | (((bytes[high + j] >> highShift) & 3) << 4);
        values[to + 32 * row + j] = scaleOfScales * scale * (quant - 32);
      }
    }
  }
}
