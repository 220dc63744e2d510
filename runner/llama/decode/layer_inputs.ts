import type {TensorInfo} from '@tensorflow/tfjs-core';

/** What a layer's attention reads for a new token. */
export interface LayerInputs {
  /** float32 `[1, (heads + 2 * keyValueHeads) * headDim]`: query, key and value as they are projected. */
  projected: TensorInfo;
  /** int32 `[1]` */
  position: TensorInfo;
  /** float32 `[positions, headDim]` each. */
  rotary: {cos: TensorInfo; signedSin: TensorInfo};
  /** Of each head's query and key, where the architecture has one: float32 `[heads + keyValueHeads, 1, headDim]`. */
  norm?: {weight: TensorInfo; epsilon: number};
  shape: {heads: number; keyValueHeads: number; headDim: number};
}
