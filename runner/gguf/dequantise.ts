import {float16Table} from '../float16';
import {BLOCK_TYPES, type BlockType} from './block_types';
import {GROUP, isQuantised, QUANTISED_FORMS, type QuantisedType, readBlocks} from './block_values';

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
  if (isQuantised(type)) dequantiseBlocks(type, bytes, values);
  else DEQUANTISE[type](bytes, values);
}

const DEQUANTISE: Record<Exclude<BlockType, QuantisedType>, (bytes: Uint8Array, values: Float32Array) => void> = {
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
};

function dequantiseBlocks(type: QuantisedType, bytes: Uint8Array, values: Float32Array): void {
  const {zero, scales: form} = QUANTISED_FORMS[type];
  const float16 = float16Table();
  readBlocks(type, bytes, (block, q, {words, floats}) => {
    const to = block * q.length;
    for (let from = 0; from < q.length; from += HALF_GROUP) {
      const half = from / HALF_GROUP;
      const group = half >> 1;
      const word = words[group];
      const scale = form === 'float16' ? float16[word & 0xffff] : form === 'float32' ? floats[2 * group] : floats[half];
      if (zero !== undefined) {
        for (let j = from; j < from + HALF_GROUP; ++j) values[to + j] = scale * (q[j] - zero);
      } else {
        const offset = form === 'float16' ? float16[word >>> 16] : floats[2 * group + 1];
        for (let j = from; j < from + HALF_GROUP; ++j) values[to + j] = scale * q[j] + offset;
      }
    }
  });
}

/** Values that have one scale in every type. */
const HALF_GROUP = GROUP / 2;
