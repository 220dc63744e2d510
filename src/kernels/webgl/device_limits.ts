import type {BlockGeometry} from '../block_geometry.js';
import type {AttentionContext} from './context.js';
import {indexColumns} from './permute.js';
import {rowLayout} from './row_texture.js';

/** Key indices stand in float32 textures, which hold whole numbers up to here exactly. */
const maxLength = 2 ** 24;

/** Throws if rows that attention reads or writes, or a tensor of tfjs, are larger than a texture of the device can be. */
export function checkRowSizes(op: string, {maxTextureSize}: AttentionContext, geometry: BlockGeometry): void {
  const {batch, heads, keyValueHeads, length, headDim} = geometry;
  if (length > maxLength) {
    throw new Error(`${op}: query: got ${length} tokens; a float32 texture holds indices up to ${maxLength}.`);
  }
  checkLayout(op, maxTextureSize, 'query', batch * heads * length, headDim);
  checkLayout(op, maxTextureSize, 'key', batch * keyValueHeads * length, headDim);
  checkTensor(op, maxTextureSize, 'query', [batch, heads, length, headDim]);
  checkTensor(op, maxTextureSize, 'key', [batch, keyValueHeads, length, headDim]);
}

/** The same for what passes between the stages. */
export function checkPlanSizes(op: string, context: AttentionContext, geometry: BlockGeometry): void {
  const {batch, heads, length, blockSize, segmentSize, blocks} = geometry;
  const {maxTextureSize, drawBuffers} = context;
  const rows = batch * heads * blocks;
  checkLayout(op, maxTextureSize, 'key order', rows, indexColumns(blockSize, drawBuffers));
  checkLayout(op, maxTextureSize, 'key scores', batch * heads * Math.ceil(length / segmentSize), segmentSize);
  checkLayout(op, maxTextureSize, 'block lists', rows, blocks + 1);
}

/** And for the tensors that a plan is given out in. */
export function checkPlanTensors(op: string, {maxTextureSize}: AttentionContext, geometry: BlockGeometry): void {
  const {batch, heads, length, blocks} = geometry;
  checkTensor(op, maxTextureSize, 'key indices', [batch, heads, length]);
  checkTensor(op, maxTextureSize, 'block mask', [batch, heads, blocks, blocks]);
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
