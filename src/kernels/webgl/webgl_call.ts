import type {AttentionCall, AttentionRequest} from '../../attention/attention_call.js';
import type {Take} from '../../attention/scratch.js';
import type {BlockPlan} from '../../attention/stage_set.js';
import type {AttentionMask} from './glsl/attention_mask.js';
import {maskSplit} from './glsl/attention_mask.js';
import {sumColumns} from './glsl/tiles.js';
import type {AttentionContext} from './runtime/context.js';
import type {RowTexture} from './runtime/row_texture.js';
import type {RowSplit} from './runtime/tensor_rows.js';
import {loadRows, wholeRows} from './runtime/tensor_rows.js';

/** A call with its tensors as rows, in which a fragment reads four values of a query or key at a time. */
export interface WebGLCall extends AttentionCall<RowTexture, RowTexture, AttentionMask> {
  context: AttentionContext;
  /** As the kernel was given them. */
  tensors: AttentionRequest['inputs'];
  /** There where gradients are asked for. */
  output: RowTexture;
  dy: RowTexture;
}

export interface WebGLPlan extends BlockPlan<RowTexture> {
  /**
   * Rows of `keyBlocks` values, one row a head, not 0 for blocks that are kept: of a plan with one block of queries, whose
   * keys and values are read from their tensors, in these blocks alone.
   */
  kept?: RowTexture;
}

/**
 * The call of a request. A tensor is loaded into rows when a stage first reads it: the value when there is a plan, and what
 * a plan lets `attend` read from its tensor never. So a call must not be spread into a copy.
 */
export function openCall(context: AttentionContext, request: AttentionRequest, scratch: Take<RowTexture>): WebGLCall {
  const {inputs: tensors, geometry, result} = request;
  const loaded: Partial<Record<keyof typeof tensors, RowTexture>> = {};
  const rows = (name: keyof typeof tensors, split: RowSplit): RowTexture =>
    (loaded[name] ??= scratch(loadRows(context, tensors[name]!, split)));
  const heads = (name: 'query' | 'key' | 'value' | 'output' | 'dy'): RowTexture => {
    const dim = tensors[name]!.shape[3];
    const isSummed = name === 'value' || result === 'gradients';
    return rows(name, {...wholeRows(dim), ...(isSummed && {columns: sumColumns(dim, context.drawBuffers)})});
  };
  return {
    ...request,
    context,
    tensors,
    get query() {
      return heads('query');
    },
    get key() {
      return heads('key');
    },
    get value() {
      return heads('value');
    },
    get output() {
      return heads('output');
    },
    get dy() {
      return heads('dy');
    },
    get keyLengths() {
      return tensors.keyLengths && rows('keyLengths', wholeRows(1));
    },
    get alibiSlopes() {
      return tensors.alibiSlopes && rows('alibiSlopes', wholeRows(1));
    },
    get sinks() {
      return tensors.sinks && rows('sinks', wholeRows(1));
    },
    get mask() {
      const {mask} = tensors;
      const split = mask && maskSplit(mask.shape, geometry, context.drawBuffers);
      return split && {rows: rows('mask', split), shape: mask.shape, dtype: mask.dtype};
    },
  };
}

/** What of a call, beside its sizes, changes the text of shaders. */
export interface CallVariant {
  causal: boolean;
  /** Whether there are key lengths. */
  padded: boolean;
  /** Keys of a tile. */
  tileKeys: number;
  /** Whether there is a window. */
  window?: true;
}

export const callVariant = ({causal, context, geometry, keyLengths}: WebGLCall): CallVariant => ({
  causal,
  padded: keyLengths !== undefined,
  tileKeys: context.drawBuffers,
  ...(geometry.window !== undefined && {window: true}),
});
