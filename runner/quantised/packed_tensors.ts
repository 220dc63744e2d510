import type {PackedType} from './packing';

/** A packed matrix, or rows of one, on the backend. */
export interface PackedTensors<T> {
  type: PackedType;
  /** `[outputs, inputs]`; inputs are a multiple of a group. */
  shape: [outputs: number, inputs: number];
  /** int32 `[outputs, words of a row]`. */
  quants: T;
  /** int32 `[outputs, words of a row]`. */
  scales: T;
}
