import type {DataId, TensorInfo} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';
import type {AttentionContext} from './context.js';
import {withMemory} from './memory.js';
import type {TensorTexture, Uniforms} from './program.js';
import {AttentionProgram} from './program.js';
import type {RowShape, RowTexture} from './row_texture.js';

/**
 * How a tensor lies in rows: seen as `[outer, inner]`, each of the `outer` runs is cut into pieces of `piece` values
 * (the last may be shorter), and a piece is a row. With `tiles`, the values of a piece are dealt out to that many tiles in
 * turn, and the row holds tile after tile, each of `tileValues` values (`tiles.ts` says why).
 */
export interface RowSplit {
  inner: number;
  piece: number;
  tiles?: number;
  tileValues?: number;
  /** Values a row: those of a piece unless given. */
  columns?: number;
  /** What stands where the piece has no value: 0 unless given. */
  filler?: number;
}

/** Runs of values as they are, each a row. */
export const wholeRows = (inner: number): RowSplit => ({inner, piece: inner});

/** A piece that is not dealt out has a tile for each value. */
function splitUniforms(split: RowSplit): Uniforms {
  const {inner, piece, tiles = piece, tileValues = 1} = split;
  return {inner, piece, pieces: piecesOf(split), tiles, tileValues};
}

const piecesOf = ({inner, piece}: RowSplit) => Math.ceil(inner / piece);

/** The rows of a tensor of that shape. */
export function rowsOfShape(shape: number[], split: RowSplit): RowShape {
  const {inner, piece, columns = piece} = split;
  return {rows: (util.sizeFromShape(shape) / inner) * piecesOf(split), columns};
}

/** A tensor as rows. Takes it in any form in which tfjs keeps it: on the processor, packed, reshaped or sliced. */
export function loadRows(context: AttentionContext, tensor: TensorInfo, split: RowSplit): RowTexture {
  return withTexture(context, tensor, (source) => new LoadRowsProgram(source, tensor.shape, split).run(context));
}

/** Runs `body` with a tensor's texture, one value a texel, in whatever form tfjs keeps it. */
export function withTexture<T>(context: AttentionContext, tensor: TensorInfo, body: (texture: TensorTexture) => T): T {
  const {backend} = context;
  upload(context, tensor);
  const isPacked = backend.texData.get(tensor.dataId).isPacked;
  const free = (made: TensorInfo) => backend.disposeIntermediateTensorInfo(made);
  const source = isPacked ? withMemory(backend, tensor.shape, () => backend.unpackTensor(tensor), free) : tensor;
  try {
    return body(tensorTexture(context, source));
  } finally {
    if (isPacked) {
      backend.disposeIntermediateTensorInfo(source);
    }
  }
}

/** Puts a tensor into a texture. Where there is no memory it stays as it was. */
function upload({backend}: AttentionContext, {dataId, shape}: TensorInfo): void {
  const data = backend.texData.get(dataId);
  if (data.texture == null) {
    const {values, usage} = data;
    const undo = () => {
      (backend as unknown as {releaseGPUData(dataId: DataId): void}).releaseGPUData(dataId);
      Object.assign(data, {values, usage});
    };
    withMemory(backend, shape, () => backend.uploadToGPU(dataId), undo);
  }
}

type TensorSpec = Pick<TensorInfo, 'shape' | 'dtype'>;

/** Rows as a tensor. */
export function storeRows(context: AttentionContext, rows: RowTexture, split: RowSplit, spec: TensorSpec): TensorInfo {
  return newTensor(context, spec, (target) => new StoreRowsProgram(rows, split).drawTensor(context, target));
}

/** A tensor whose values `draw` draws. */
export function newTensor(
  context: AttentionContext,
  {shape, dtype}: TensorSpec,
  draw: (target: TensorTexture) => void,
): TensorInfo {
  const {backend} = context;
  const tensor = backend.makeTensorInfo(shape, dtype);
  try {
    // tfjs makes a texture to draw into, one value a texel, of what is used so; 0 is its TextureUsage.RENDER, an enum
    // that its package does not export.
    backend.texData.get(tensor.dataId).usage = 0;
    upload(context, tensor);
    draw(tensorTexture(context, tensor));
  } catch (error) {
    backend.disposeIntermediateTensorInfo(tensor);
    throw error;
  }
  return tensor;
}

function tensorTexture({backend}: AttentionContext, {dataId, shape}: TensorInfo): TensorTexture {
  const {texture, texShape, slice} = backend.texData.get(dataId);
  const [height, width] = texShape!;
  return {texture: texture!.texture, width, height, offset: slice?.flatOffset ?? 0, size: util.sizeFromShape(shape)};
}

interface LoadVariant {
  /** Whether a run of values is a row. */
  whole: boolean;
}

export class LoadRowsProgram extends AttentionProgram<LoadVariant> {
  constructor(source: TensorTexture, shape: number[], split: RowSplit) {
    const {inner, piece, tiles, filler = 0} = split;
    super({
      name: 'LoadRows',
      inputs: {source},
      uniforms: splitUniforms(split),
      floats: {filler},
      output: rowsOfShape(shape, split),
      variant: {whole: piece === inner && tiles === undefined && filler === 0},
      fetches: 4,
    });
  }

  protected shader({whole}: LoadVariant): string {
    if (whole) {
      return `
// A fragment copies the four values of its texel.
void compute(int row, int texel) {
  result0 = fourSource(sourceAt(row * inner + 4 * texel), inner - 4 * texel);
}`;
    }
    return `
// A fragment gathers the four values of its texel.
void compute(int row, int texel) {
  int run = row / pieces;
  int firstOfPiece = (row % pieces) * piece;
  vec4 four = vec4(filler);
  for (int c = 0; c < 4; c++) {
    int column = 4 * texel + c;
    int place = column / tileValues + (column % tileValues) * tiles;
    if (place < piece && firstOfPiece + place < inner) {
      four[c] = readSource(run * inner + firstOfPiece + place);
    }
  }
  result0 = four;
}`;
  }
}

export class StoreRowsProgram extends AttentionProgram<object> {
  constructor(source: RowTexture, split: RowSplit) {
    super({
      name: 'StoreRows',
      inputs: {source},
      uniforms: splitUniforms(split),
      variant: {},
      fetches: 1,
    });
  }

  protected shader(): string {
    return `
// A fragment writes one value of the tensor.
void compute(int index) {
  int inRun = index % inner;
  int place = inRun % piece;
  int column = (place % tiles) * tileValues + place / tiles;
  vec4 four = readSource((index / inner) * pieces + inRun / piece, column / 4);
  result0 = vec4(four[column % 4], 0.0, 0.0, 0.0);
}`;
  }
}
