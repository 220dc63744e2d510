import type {TensorInfo} from '@tensorflow/tfjs-core';

/** What a layer's attention reads for new tokens, which stand one after the other. */
export interface LayerInputs {
  /** float32 `[rows, (heads + 2 * keyValueHeads) * headDim]`: query, key and value of each token as they are projected. */
  projected: TensorInfo;
  /** int32 `[2]`: the position of the first token, and how many there are; the rows after them are left alone. */
  span: TensorInfo;
  /** float32 `[positions, headDim]` each. */
  rotary: {cos: TensorInfo; signedSin: TensorInfo};
  /** Of each head's query and key, where the architecture has one: float32 `[heads + keyValueHeads, 1, headDim]`. */
  norm?: {weight: TensorInfo; epsilon: number};
  /** Positions that a row sees, its own included. Default: all. */
  window?: number;
  shape: {heads: number; keyValueHeads: number; headDim: number};
}
