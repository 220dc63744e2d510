import type {PBSAttentionReport} from './pbs_attention_report.js';

/** Options of exact attention. */
export interface FlashAttentionOptions {
  /** Whether a query sees only keys at its own position and before. Default `true`. */
  causal?: boolean;
  /** Factor on the products of queries and keys before the softmax. Default `1 / sqrt(headDim)`. */
  scale?: number;
  /**
   * `'float16'` allows products of float16 and a float32 softmax where the device can (see `registerWebGPUBackend`): on
   * matrix units, with float32 sums, inputs within float16's range, 65,504; without, in the shader's float16, where sums
   * of up to 16 products must lie within it too; elsewhere it runs in float32. Blocks are scored and selected in float32
   * in any case. Default `'float32'`.
   */
  precision?: 'float32' | 'float16';
}

/** Options of permuted block-sparse attention (arXiv 2510.21270, section 3). */
export interface PBSAttentionOptions extends FlashAttentionOptions {
  /** Rows a block, B in the paper: the unit in which keys are kept or skipped. Default 128. */
  blockSize?: number;
  /** Keys a segment, S in the paper: the range in which keys are sorted. A multiple of `blockSize`. Default 256. */
  segmentSize?: number;
  /**
   * Share of the estimated attention that the kept blocks must reach, from 0 to 1, τ in the paper. A higher threshold
   * keeps more blocks; 1 is exact attention. Default 0.9.
   */
  threshold?: number;
  /** Whether keys are sorted inside segments. Default `true`. */
  permute?: boolean;
  /**
   * Whether blocks for the last query rows are chosen by the exact attention of those rows, which the permutation has
   * computed, instead of the pooled estimate. Not in the paper; causal attention only. Default `true`.
   */
  exactLastBlock?: boolean;
  /**
   * Whether `pbsAttention` runs exact attention instead where it does not expect blocks to pay: short lengths, few heads,
   * a high threshold. Decided by shape, options and device before anything is launched (`kernels/cost_model.ts`); the
   * output is then that of `flashAttention`. A plan is that of block-sparse attention in any case. Default `true`.
   */
  auto?: boolean;
  /**
   * Told what the call did, before `pbsAttention` returns: density, kept attention, the plan, and why exact attention ran.
   * The receiver disposes the report. A call without it does nothing for it. For `pbsAttention` alone. Default: none.
   */
  onReport?: (report: PBSAttentionReport) => void;
}

/** Defaults that do not depend on the inputs. */
export const defaultOptions = {
  causal: true,
  precision: 'float32' as 'float32' | 'float16',
  blockSize: 128,
  segmentSize: 256,
  threshold: 0.9,
  permute: true,
  exactLastBlock: true,
  auto: true,
};
