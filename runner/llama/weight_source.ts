import type {PackedType} from '../quantised/packed_type';

export interface StoredBlocks {
  type: PackedType;
  /** The blocks of rows [first, end), row after row. */
  readRows(first: number, end: number): Promise<Uint8Array>;
}

/** The tensors of a checkpoint, by the names that transformers gives them, whatever files they lie in. */
export interface WeightSource {
  names(): string[];
  /** The file that holds a tensor. */
  fileOf(name: string): string;
  shape(name: string): readonly number[];
  /** Throws, by file and name, if the tensor is missing or has another shape. */
  check(name: string, shape: readonly number[]): void;
  /** The values of one tensor, row-major, as float32. */
  read(name: string): Promise<Float32Array>;
  /** A matrix in a type that the GPU can keep; nothing for others. Without the method there are none. */
  blocks?(name: string): StoredBlocks | undefined;
}
