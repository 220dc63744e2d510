import type {StoredTensor} from '../tiny/random_checkpoint';

export type Dtype = 'F32' | 'BF16' | 'F16';

/** A float32 tensor rounded to another type, as a checkpoint stores it. */
export function storedAs(dtype: Dtype, tensor: StoredTensor): StoredTensor {
  if (dtype === 'F32') return tensor;
  const encode = dtype === 'BF16' ? bfloat16Bits : float16Bits;
  const bits = Uint16Array.from(valuesOf(tensor), encode);
  return {dtype, shape: tensor.shape, bytes: new Uint8Array(bits.buffer)};
}

/** The values of a stored tensor, by the definitions of the types. */
export function valuesOf({dtype, bytes}: StoredTensor): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === 'F32') return Float32Array.from({length: bytes.length / 4}, (_, i) => view.getFloat32(4 * i, true));
  const decode = dtype === 'BF16' ? bfloat16Value : float16Value;
  return Float32Array.from({length: bytes.length / 2}, (_, i) => decode(view.getUint16(2 * i, true)));
}

/** Cut off, not rounded: any neighbour will do. */
function bfloat16Bits(x: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, x);
  return view.getUint16(0);
}

/** 1 sign bit, 8 exponent bits with bias 127, 7 fraction bits. */
function bfloat16Value(bits: number): number {
  const exponent = Math.floor(bits / 128) % 256;
  const fraction = (bits % 128) / 128;
  const size = exponent === 0 ? fraction * 2 ** -126 : (1 + fraction) * 2 ** (exponent - 127);
  return bits < 2 ** 15 ? size : -size;
}

/** Of values between 2^-24 and 65,504 in size, and zero. */
function float16Bits(x: number): number {
  const size = Math.abs(x);
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  // Steps of the fraction; a sum, so that 1024 of them carry into the exponent. Subnormals have exponent field 0.
  const steps = Math.round((size / 2 ** exponent) * 1024);
  return (x < 0 ? 2 ** 15 : 0) + (exponent + 14) * 1024 + steps;
}

/** 1 sign bit, 5 exponent bits with bias 15, 10 fraction bits. */
function float16Value(bits: number): number {
  const exponent = Math.floor(bits / 1024) % 32;
  const fraction = (bits % 1024) / 1024;
  const size = exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15);
  return bits < 2 ** 15 ? size : -size;
}
