import {each} from '../shader_text.js';
import {headVectors} from './program.js';

/**
 * A tile of the gradient stages: 8 × 8 invocations, each with `rows` × `rows` scores. A workgroup owns `8 * rows` rows
 * (queries, or keys) and walks over as many of the others at a time. Invocation (x, y) owns the rows `y + r * 8`, and of
 * the walked rows the columns `x + c * 8`.
 *
 * Heads pass through workgroup memory in chunks of 8 vec4, a vec4 for each x, so that the memory does not grow with the
 * head: the largest tile takes less than the 16 KiB that every device has.
 */
export interface GradientTile {
  rows: 2 | 4;
}

export const gradientThreads = 64;
/** Rows that a workgroup owns, and rows that it walks over at a time. */
export const tileRows = ({rows}: GradientTile) => 8 * rows;
export const headChunks = (headDim: number) => Math.ceil(headVectors(headDim) / 8);

/** Which rows: of query and key, or of value and output. */
type Head = 'head' | 'value';

/**
 * The larger tile, unless blocks, whose end no tile crosses, are shorter, there would be few workgroups (`extent` is the
 * block size, or the length where attention is exact), or its sums would fill the registers.
 */
export function chooseGradientTile(headDim: number, valueDim: number, extent: number): GradientTile {
  return {rows: extent < 64 || Math.max(headDim, valueDim) > 128 ? 2 : 4};
}

/** Shader text: constants, and the chunks in workgroup memory. An odd stride puts neighbouring rows in different banks. */
export function gradientTile({rows}: GradientTile, headDim: number, valueDim: number): string {
  const size = 8 * rows;
  return `
const threads = ${gradientThreads};
const rows = ${rows};
const tileQueries = ${size};
const tileKeys = ${size};
const headVectors = ${headVectors(headDim)};
const headChunks = ${headChunks(headDim)};
const valueVectors = ${headVectors(valueDim)};
const valueChunks = ${headChunks(valueDim)};
const chunkStride = 9;
var<workgroup> ownedChunk : array<vec4<f32>, ${size * 9}>;
var<workgroup> walkedChunk : array<vec4<f32>, ${size * 9}>;
// Rows of the tensors that stand in the chunks; -1 for none.
var<workgroup> ownedRows : array<i32, ${size}>;
var<workgroup> walkedRows : array<i32, ${size}>;
// Rounds of the workgroup's walk: its barriers need a number that all invocations are known to share.
var<workgroup> roundCount : i32;`;
}

/** Shader text: the place (x, y) of an invocation. */
export const tilePlace = `  let x = i32(localIndex) % 8;
  let y = i32(localIndex) / 8;`;

/** Shader text: loads a chunk of the rows, a vec4 an invocation and row; zeros where a row does not exist or has ended. */
function loadChunk(head: Head, chunk: string, of: 'owned' | 'walked', read: string): string {
  return `for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (${of}Rows[slot] >= 0 && ${chunk} * 8 + x < ${head}Vectors) {
        loaded = ${read}(${of}Rows[slot], ${chunk} * 8 + x);
      }
      ${of}Chunk[slot * chunkStride + x] = loaded;
    }`;
}

/**
 * Shader text: adds to `sums`, an array of arrays, the products of owned rows with walked rows. `ownedRows` and
 * `walkedRows` say which, and were written before a barrier.
 */
export function addProducts(
  tile: GradientTile,
  head: Head,
  sums: string,
  readOwned: string,
  readWalked: string,
): string {
  const {rows} = tile;
  return `for (var chunk = 0; chunk < ${head}Chunks; chunk++) {
    ${loadChunk(head, 'chunk', 'owned', readOwned)}
    ${loadChunk(head, 'chunk', 'walked', readWalked)}
    // Barrier: products read rows that others loaded.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      ${each(rows, (r) => `let owned${r} = ownedChunk[(y + ${8 * r}) * chunkStride + i];`, '\n      ')}
      ${each(
        rows,
        (c) => `let walked${c} = walkedChunk[(x + ${8 * c}) * chunkStride + i];
      ${each(rows, (r) => `${sums}[${r}][${c}] += dot(owned${r}, walked${c});`, '\n      ')}`,
        '\n      ',
      )}
    }
    // Barrier: the next chunk overwrites this one.
    workgroupBarrier();
  }`;
}

/** Shader text: workgroup memory for `addWeighted`: the weights of a row in the columns of an x, together. */
export function weightsMemory({rows}: GradientTile): string {
  return `var<workgroup> weights : array<vec${rows}<f32>, ${8 * rows * 9}>;`;
}

/**
 * Shader text: adds to `sums`, of `[rows][headChunks]` vec4, the walked rows of a tensor times `weight(r, c)`: an
 * expression for row r and column c of this invocation.
 */
export function addWeighted(
  tile: GradientTile,
  head: Head,
  dim: number,
  sums: string,
  readWalked: string,
  weight: (r: number, c: number) => string,
): string {
  const {rows} = tile;
  const list = (text: (c: number) => string) => each(rows, text, ', ');
  return `${each(rows, (r) => `weights[(y + ${8 * r}) * 9 + x] = vec${rows}<f32>(${list((c) => weight(r, c))});`)}
    ${each(
      headChunks(dim),
      (chunk) => `${loadChunk(head, `${chunk}`, 'walked', readWalked)}
    // Barrier: sums read weights and rows of others.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      ${each(rows, (r) => `let weights${r} = weights[(y + ${8 * r}) * 9 + i];`, '\n      ')}
      ${each(
        rows,
        (c) => `let walked${c} = walkedChunk[(i + ${8 * c}) * chunkStride + x];
      ${each(rows, (r) => `${sums}[${r}][${chunk}] += weights${r}[${c}] * walked${c};`, '\n      ')}`,
        '\n      ',
      )}
    }
    // Barrier: the next chunk overwrites this one, the next weights these.
    workgroupBarrier();`,
    )}`;
}

/** Shader text: calls `write(row, vector, sums)` for the vectors of a row that this invocation has summed. */
export function writeSums(
  tile: GradientTile,
  dim: number,
  write: (r: number, vector: string, chunk: number) => string,
): string {
  return each(headChunks(dim), (chunk) => {
    const vector = `${8 * chunk} + x`;
    const writes = each(tile.rows, (r) => write(r, vector, chunk));
    return headVectors(dim) < 8 * (chunk + 1) ? `if (${vector} < ${headVectors(dim)}) { ${writes} }` : writes;
  });
}

/** Shader text: score of a key that a mask hides; finite, because WGSL need not support infinities. */
export const maskedConstant = 'const masked = -3.4e38f;';
