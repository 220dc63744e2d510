import type {TensorInfo} from '@tensorflow/tfjs-core';
import {env} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {valueColumns} from '../attend/attend_passes.js';
import {maskRowShape} from '../glsl/attention_mask.js';
import type {AttentionContext} from './context.js';
import {rowLayout} from './row_texture.js';
import {indexColumns} from '../permute/sort_keys.js';

/** Key indices stand in float32 textures, which hold whole numbers up to here exactly. */
const maxLength = 2 ** 24;

/** Throws if rows that attention reads or writes, or a tensor of tfjs, are larger than a texture of the device can be. */
export function checkRowSizes(
  op: string,
  {maxTextureSize, drawBuffers}: AttentionContext,
  geometry: BlockGeometry,
): void {
  const {batch, heads, keyValueHeads, queryLength, keyLength, headDim, valueDim} = geometry;
  const keyRows = batch * keyValueHeads * keyLength;
  if (keyLength > maxLength) {
    throw new Error(`${op}: key: got ${keyLength} tokens; a float32 texture holds indices up to ${maxLength}.`);
  }
  checkLayout(op, maxTextureSize, 'query', batch * heads * queryLength, headDim);
  checkLayout(op, maxTextureSize, 'key', keyRows, headDim);
  checkLayout(op, maxTextureSize, 'value', keyRows, valueColumns(valueDim, drawBuffers));
  checkTensor(op, maxTextureSize, 'query', [batch, heads, queryLength, headDim]);
  checkTensor(op, maxTextureSize, 'key', [batch, keyValueHeads, keyLength, headDim]);
  checkTensor(op, maxTextureSize, 'value', [batch, keyValueHeads, keyLength, valueDim]);
  checkTensor(op, maxTextureSize, 'output', [batch, heads, queryLength, valueDim]);
}

/** Whole numbers up to here are exact in float16. */
const maxHalfInteger = 2048;

/**
 * Throws if a tensor of positions among the keys would be rounded: where tfjs was told to keep its textures in float16
 * (`WEBGL_FORCE_F16_TEXTURES`), those of int32 are too.
 */
function checkPositions(op: string, {keyLength}: BlockGeometry, name: string): void {
  if (keyLength > maxHalfInteger && !env().getBool('WEBGL_RENDER_FLOAT32_ENABLED')) {
    throw new Error(
      `${op}: ${name}: got float16 textures for positions among ${keyLength} keys; takes at most ${maxHalfInteger} keys ` +
        'then, or float32 textures (WEBGL_FORCE_F16_TEXTURES false).',
    );
  }
}

/** The same for what hides keys. */
export function checkHiddenKeys(
  op: string,
  {maxTextureSize, drawBuffers}: AttentionContext,
  geometry: BlockGeometry,
  {keyLengths, mask}: {keyLengths?: TensorInfo; mask?: TensorInfo},
): void {
  if (keyLengths) {
    checkPositions(op, geometry, 'keyLengths');
  }
  if (mask) {
    const {rows, columns} = maskRowShape(mask.shape, geometry, drawBuffers);
    checkLayout(op, maxTextureSize, 'mask', rows, columns);
    checkTensor(op, maxTextureSize, 'mask', mask.shape);
  }
}

/** The same for the gradients: of keys and values, each query head has rows of its own. */
export function checkGradientSizes(op: string, context: AttentionContext, geometry: BlockGeometry): void {
  const {batch, heads, queryLength, keyLength, headDim, valueDim} = geometry;
  const {maxTextureSize} = context;
  checkRowSizes(op, context, geometry);
  checkLayout(op, maxTextureSize, 'dy', batch * heads * queryLength, valueDim);
  checkLayout(op, maxTextureSize, 'gradients of keys', batch * heads * keyLength, headDim);
  checkLayout(op, maxTextureSize, 'gradients of values', batch * heads * keyLength, valueDim);
}

/** The same for what passes between the stages, by a plan of which the key indices are `given` or by one that is made. */
export function checkPlanSizes(
  op: string,
  context: AttentionContext,
  geometry: BlockGeometry,
  given?: TensorInfo,
): void {
  const {batch, heads, keyLength, headDim, keyBlockSize, segmentSize, queryBlocks, keyBlocks} = geometry;
  const {maxTextureSize, drawBuffers} = context;
  if (given) {
    checkPositions(op, geometry, 'plan');
  }
  checkLayout(op, maxTextureSize, 'key order', batch * heads * keyBlocks, indexColumns(keyBlockSize, drawBuffers));
  checkLayout(op, maxTextureSize, 'key scores', batch * heads * Math.ceil(keyLength / segmentSize), segmentSize);
  checkLayout(op, maxTextureSize, 'block lists', batch * heads * queryBlocks, keyBlocks + 1);
  checkLayout(op, maxTextureSize, 'block means', batch * heads * Math.max(queryBlocks, keyBlocks), headDim);
}

/** And for the tensors that a plan is given out in. */
export function checkPlanTensors(op: string, {maxTextureSize}: AttentionContext, geometry: BlockGeometry): void {
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  checkPositions(op, geometry, 'key indices');
  checkTensor(op, maxTextureSize, 'key indices', [batch, heads, keyLength]);
  checkTensor(op, maxTextureSize, 'block mask', [batch, heads, queryBlocks, keyBlocks]);
}

function checkLayout(op: string, maxTextureSize: number, name: string, rows: number, columns: number): void {
  if (!rowLayout({rows, columns}, maxTextureSize)) {
    throw new Error(
      `${op}: ${name}: got ${rows} rows of ${columns} values, more than one texture holds; ` +
        `this WebGL device takes textures up to ${maxTextureSize} x ${maxTextureSize}.`,
    );
  }
}

/** tfjs lays a tensor out one value a texel. */
function checkTensor(op: string, maxTextureSize: number, name: string, shape: number[]): void {
  const size = shape.reduce((a, b) => a * b, 1);
  if (size > maxTextureSize ** 2) {
    throw new Error(
      `${op}: ${name} [${shape}] has ${size} values, more than one texture holds; ` +
        `this WebGL device takes textures up to ${maxTextureSize} x ${maxTextureSize}.`,
    );
  }
}
