import {env} from '@tensorflow/tfjs-core';
import type {AttentionRequest} from '../../attention/attention_call.js';
import {isSparse} from '../../attention/attention_call.js';
import {maskSplit} from './glsl/attention_mask.js';
import {keyIndexSplit, sumColumns} from './glsl/tiles.js';
import type {AttentionContext} from './runtime/context.js';
import {rowLayout} from './runtime/row_texture.js';
import {rowsOfShape} from './runtime/tensor_rows.js';

/** Key indices stand in float32 textures, which hold whole numbers up to here exactly. */
const maxLength = 2 ** 24;

/** Whole numbers up to here are exact in float16. */
const maxHalfInteger = 2048;

/**
 * Throws if rows that a call reads, writes or passes between its stages, or a tensor of tfjs, are larger than a texture of
 * the device can be; or if a tensor of positions among the keys would be rounded.
 */
export function checkRequest(context: AttentionContext, request: AttentionRequest): void {
  const {op, inputs, geometry, result} = request;
  const {maxTextureSize, drawBuffers} = context;
  const {batch, heads, keyValueHeads, queryLength, keyLength, headDim, valueDim} = geometry;
  const {segmentSize, queryBlocks, keyBlocks} = geometry;
  const limit = `this WebGL device takes textures up to ${maxTextureSize} x ${maxTextureSize}.`;

  function checkRows(name: string, rows: number, columns: number): void {
    if (!rowLayout({rows, columns}, maxTextureSize)) {
      throw new Error(`${op}: ${name}: got ${rows} rows of ${columns} values, more than one texture holds; ${limit}`);
    }
  }

  /** tfjs lays a tensor out one value a texel. */
  function checkTensor(name: string, shape: number[]): void {
    const size = shape.reduce((a, b) => a * b, 1);
    if (size > maxTextureSize ** 2) {
      throw new Error(`${op}: ${name} [${shape}] has ${size} values, more than one texture holds; ${limit}`);
    }
  }

  /** Where tfjs was told to keep its textures in float16 (`WEBGL_FORCE_F16_TEXTURES`), those of int32 are too. */
  function checkPositions(name: string): void {
    if (keyLength > maxHalfInteger && !env().getBool('WEBGL_RENDER_FLOAT32_ENABLED')) {
      throw new Error(
        `${op}: ${name}: got float16 textures for positions among ${keyLength} keys; takes at most ${maxHalfInteger} ` +
          'keys then, or float32 textures (WEBGL_FORCE_F16_TEXTURES false).',
      );
    }
  }

  if (keyLength > maxLength) {
    throw new Error(`${op}: key: got ${keyLength} tokens; a float32 texture holds indices up to ${maxLength}.`);
  }
  const keyRows = batch * keyValueHeads * keyLength;
  checkRows('query', batch * heads * queryLength, headDim);
  checkRows('key', keyRows, headDim);
  checkRows('value', keyRows, sumColumns(valueDim, drawBuffers));
  checkTensor('query', [batch, heads, queryLength, headDim]);
  checkTensor('key', [batch, keyValueHeads, keyLength, headDim]);
  checkTensor('value', [batch, keyValueHeads, keyLength, valueDim]);
  checkTensor('output', [batch, heads, queryLength, valueDim]);
  if (result === 'gradients') {
    checkRows('dy', batch * heads * queryLength, valueDim);
    // Each query head has rows of its own.
    checkRows('gradients of keys', batch * heads * keyLength, headDim);
    checkRows('gradients of values', batch * heads * keyLength, valueDim);
  }
  if (inputs.keyLengths) {
    checkPositions('keyLengths');
  }
  if (inputs.mask) {
    const {shape} = inputs.mask;
    const {rows, columns} = rowsOfShape(shape, maskSplit(shape, geometry, drawBuffers));
    checkRows('mask', rows, columns);
    checkTensor('mask', shape);
  }
  if (result === 'plan') {
    checkPositions('key indices');
    checkTensor('key indices', [batch, heads, keyLength]);
    checkTensor('block mask', [batch, heads, queryBlocks, keyBlocks]);
  }
  if (isSparse(request)) {
    if (inputs.keyIndices) {
      checkPositions('plan');
    }
    checkRows('key order', batch * heads * keyBlocks, keyIndexSplit(geometry, drawBuffers).columns);
    checkRows('key scores', batch * heads * Math.ceil(keyLength / segmentSize), segmentSize);
    checkRows('block lists', batch * heads * queryBlocks, keyBlocks + 1);
    checkRows('block means', batch * heads * Math.max(queryBlocks, keyBlocks), headDim);
  }
}
