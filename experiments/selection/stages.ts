import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../../src/kernels/block_geometry';
import * as cpu from './cpu_stages';
import * as webgpu from './webgpu_stages';

/** Key scores `[1, heads, permutedLength]` and key order `[1, heads, length]`, as the library's first stage gives them. */
export type KeyOrder = {keyScores: tf.Tensor3D; keyIndices: tf.Tensor3D};

/** The library's stages as functions of tensors, on the current backend. Causal, float32. */
export interface Stages {
  permute: (query: tf.Tensor4D, key: tf.Tensor4D, geometry: BlockGeometry, scale: number, sort: boolean) => KeyOrder;
  /** Sorts the keys of each segment by scores that came from elsewhere. */
  sortKeys: (keyScores: tf.Tensor3D, geometry: BlockGeometry) => tf.Tensor3D;
  /** Scores `[1, heads, blocks, blocks]` of the library's own estimate, `exactLastBlock` left out. */
  scoreBlocks: (
    query: tf.Tensor4D,
    key: tf.Tensor4D,
    order: KeyOrder,
    geometry: BlockGeometry,
    scale: number,
  ) => tf.Tensor4D;
  /** Block lists `[1, heads, blocks, blocks + 1]`. */
  selectBlocks: (
    scores: tf.Tensor4D,
    keyIndices: tf.Tensor3D,
    geometry: BlockGeometry,
    threshold: number,
  ) => tf.Tensor4D;
  /** `[1, heads, blocks, blocks]`, 1 where a block is kept. */
  blockMask: (blockLists: tf.Tensor4D, geometry: BlockGeometry) => tf.Tensor4D;
  attend: (
    query: tf.Tensor4D,
    key: tf.Tensor4D,
    value: tf.Tensor4D,
    plan: {keyIndices: tf.Tensor3D; blockLists: tf.Tensor4D},
    geometry: BlockGeometry,
    scale: number,
  ) => tf.Tensor4D;
}

export function currentStages(): Stages {
  switch (tf.getBackend()) {
    case 'webgpu':
      return webgpu.stages(tf.backend() as WebGPUBackend);
    case 'cpu':
      return cpu.stages;
    default:
      throw new Error(`candidates for selection: backend is ${tf.getBackend()}; accepted: webgpu, cpu`);
  }
}
