import type {TensorInfo} from '@tensorflow/tfjs-core';
import {
  AttentionProgram,
  fragment,
  fragmentTypes,
  localOf,
  matrixExtensions,
  type MatrixUnits,
  unroll,
  workgroupIndex,
} from '../../../src/internal';
import type {Activation} from '../../llama/kernels/gated_activation';
import type {ProductInputs} from '../product_ops';
import {packText} from './float16';
import {epilogueText, type EpilogueVariant} from './product_epilogue';
import {
  DEPTH,
  LANES,
  STAGED_STRIDE,
  subgroupsOf,
  threadsOf,
  TILE_STRIDE,
  tileValues,
  type ProductTile,
} from './product_tiles';

interface ProductVariant extends EpilogueVariant {
  tile: ProductTile;
  units: MatrixUnits;
}

/**
 * `x · weightᵀ` in float16 with float32 sums, on the matrix units of the device: the kernels `Product` and, with `up`,
 * `GatedProduct` (`product_ops.ts`).
 *
 * @param headDim columns of a matrix of the output; 0: the output is one matrix.
 * @param activation of the gates, with `up`.
 */
export class ProductMatrixProgram extends AttentionProgram<ProductVariant> {
  constructor(
    inputs: ProductInputs<TensorInfo>,
    headDim: number,
    {tile, units}: {tile: ProductTile; units: MatrixUnits},
    activation: Activation = 'silu',
  ) {
    const {x, weight, up, bias, residual} = inputs;
    const [rows] = x.shape;
    const [outputs] = weight.shape;
    const read = (tensor?: TensorInfo) => tensor && {tensor, components: 4 as const};
    super({
      name: 'ProductMatrix',
      inputs: {x: read(x), weight: read(weight), up: read(up), bias: read(bias), residual: read(residual)},
      outputShape: up ? [rows, outputs / 2] : headDim ? [outputs / headDim, rows, headDim] : [rows, outputs],
      outputType: up ? 'int32' : 'float32',
      outputComponents: 4,
      threads: threadsOf(tile),
      workgroups: Math.ceil(rows / tile.rows) * Math.ceil(outputs / outputsOf(tile, up !== undefined)),
      variant: {
        tile,
        units,
        gated: up && activation,
        biased: bias !== undefined,
        added: residual !== undefined,
        headDim,
      },
      extensions: matrixExtensions,
    });
  }

  protected shader({tile, units, ...epilogue}: ProductVariant): string {
    const {rows, columns, ofSubgroup} = tile;
    const gated = epilogue.gated !== undefined;
    const [rowsOfSubgroup, columnsOfSubgroup] = ofSubgroup;
    const threads = threadsOf(tile);
    const subgroupsAcross = columns / columnsOfSubgroup;
    const matrices = gated ? ['weight', 'up'] : ['weight'];
    const outputs = outputsOf(tile, gated);
    const outputsOfSubgroup = columnsOfSubgroup / matrices.length;
    const {leftType, rightType, sumType} = fragmentTypes(units);
    const rowFragments = rowsOfSubgroup / units.rows;
    const columnFragments = outputsOfSubgroup / units.columns;
    const stride = TILE_STRIDE;

    // An invocation carries the same eight of values of one row a round.
    const vectorsOfRow = DEPTH / 8;
    const rowsOfRound = threads / vectorsOfRow;
    const xRounds = rows / rowsOfRound;
    const weightRounds = columns / rowsOfRound;
    const matrixOfRound = (j: number) => Math.floor((j * rowsOfRound) / outputs);
    const fetch = `${unroll(xRounds, (j) => `xs[${j}] = x[xAt${j} + vector];`)}
    ${unroll(weightRounds, (j) => `weights[${j}] = ${matrices[matrixOfRound(j)]}[weightAt${j} + vector];`)}`;
    const store = (row: number, words: string) => `{
      let at = (loadRow + ${row}) * ${stride} + 8 * loadVector;
      let a = bitcast<vec4<f16>>(${words}.xy);
      let b = bitcast<vec4<f16>>(${words}.zw);
      ${unroll(8, (i) => `tiles[at + ${i}] = ${i < 4 ? 'a' : 'b'}[${i % 4}];`, ' ')}
    }`;

    const sums = (r: number, m: number, c: number) => `sum${r}_${m}_${c}`;
    const everySum = (text: (r: number, m: number, c: number) => string) =>
      unroll(rowFragments, (r) =>
        unroll(matrices.length, (m) => unroll(columnFragments, (c) => text(r, m, c), '\n  '), '\n  '),
      );
    const load = (type: string, layout: string, at: string) =>
      `subgroupMatrixLoad<${type}, ${layout}>(&tiles, u32(${at}), ${stride}u)`;
    const left = (r: number, k: number) =>
      load(leftType, 'row_major', `subgroupRow * ${stride} + ${r * units.rows * stride + k * units.depth}`);
    const right = (m: number, c: number, k: number) => {
      const row = rows + m * outputs + c * units.columns;
      return load(rightType, 'col_major', `subgroupOutput * ${stride} + ${row * stride + k * units.depth}`);
    };

    // Sums go out as squares of 16 rows and columns, of as many fragments as that takes.
    const [across, down] = [fragment / units.columns, fragment / units.rows];
    const storeSquare = (r: number, m: number, c: number) =>
      unroll(down, (i) =>
        unroll(across, (j) => {
          const at = i * units.rows * STAGED_STRIDE + j * units.columns;
          return `subgroupMatrixStore<row_major>(&staged, u32(stagedAt${at ? ` + ${at}` : ''}), ${sums(r * down + i, m, c * across + j)}, ${STAGED_STRIDE}u);`;
        }),
      );

    return `
// A workgroup computes ${rows} rows of the product with ${outputs} ${gated ? 'rows of each of two matrices, gates and ups of the same outputs' : 'rows of the matrix'}; each of its ${subgroupsOf(tile)}
// subgroups owns ${rowsOfSubgroup} x ${columnsOfSubgroup} sums, which stay in registers. It walks along the inputs, ${DEPTH} at a time.
//
// Workgroup memory: tiles holds ${DEPTH} inputs of all rows of x, then of all rows of weights, float16; what the next step
// needs is read from global memory while this one is computed. Who holds an element of a matrix in registers is not known,
// so sums go out by way of staged, ${fragment} rows and columns of each subgroup at a time.
${workgroupIndex}
var<workgroup> tiles : array<f16, ${tileValues(tile)}>;
var<workgroup> staged : array<f32, ${subgroupsOf(tile) * fragment * STAGED_STRIDE}>;

${gated ? packText : ''}
fn stagedVector(at : i32) -> vec4<f32> {
  return vec4<f32>(staged[at], staged[at + 1], staged[at + 2], staged[at + 3]);
}
${epilogueText(epilogue, true)}

fn main(index : i32) {
  ${localOf(threads)}
  let subgroup = local / ${LANES};
  let lane = local % ${LANES};
  // Neighbouring workgroups take the same rows of x. Those past the last row take it once more, and write nothing.
  let tilesAcross = (uniforms.weightShape.x + ${outputs - 1}) / ${outputs};
  let firstRow = workgroupIndex() / tilesAcross * ${rows};
  let firstOutput = workgroupIndex() % tilesAcross * ${outputs};
  let subgroupRow = subgroup / ${subgroupsAcross} * ${rowsOfSubgroup};
  let subgroupOutput = subgroup % ${subgroupsAcross} * ${outputsOfSubgroup};

  let vectors = uniforms.xShape.y / 4;
  let loadRow = local / ${vectorsOfRow};
  let loadVector = local % ${vectorsOfRow};
  let lastRow = uniforms.xShape.x - 1;
  let lastOutput = uniforms.weightShape.x - 1;
  ${unroll(xRounds, (j) => `let xAt${j} = min(firstRow + loadRow + ${j * rowsOfRound}, lastRow) * vectors;`, '\n  ')}
  ${unroll(weightRounds, (j) => `let weightAt${j} = min(firstOutput + loadRow + ${j * rowsOfRound - matrixOfRound(j) * outputs}, lastOutput) * vectors;`, '\n  ')}
  var xs : array<vec4<i32>, ${xRounds}>;
  var weights : array<vec4<i32>, ${weightRounds}>;
  var vector = loadVector;
  {
    ${fetch}
  }
  ${everySum((...of) => `var ${sums(...of)} = ${sumType}();`)}

  let steps = vectors / ${vectorsOfRow};
  for (var step = 0; step < steps; step++) {
    ${unroll(xRounds, (j) => store(j * rowsOfRound, `xs[${j}]`))}
    ${unroll(weightRounds, (j) => store(rows + j * rowsOfRound, `weights[${j}]`))}
    // Barrier: a subgroup reads what others stored.
    workgroupBarrier();
    // After the last step it reads the last tile once more.
    vector = loadVector + min(step + 1, steps - 1) * ${vectorsOfRow};
    ${fetch}
    ${unroll(
      DEPTH / units.depth,
      (k) => `{
      ${unroll(rowFragments, (r) => `let left${r} = ${left(r, k)};`, '\n      ')}
      ${unroll(
        matrices.length,
        (m) =>
          unroll(
            columnFragments,
            (c) => `{
        let right = ${right(m, c, k)};
        ${unroll(rowFragments, (r) => `${sums(r, m, c)} = subgroupMatrixMultiplyAccumulate(left${r}, right, ${sums(r, m, c)});`, '\n        ')}
      }`,
            '\n      ',
          ),
        '\n      ',
      )}
    }`,
    )}
    // Barrier: the next step overwrites the tiles.
    workgroupBarrier();
  }

  // Two neighbouring lanes share a row of them: each takes eight of its values.
  let stagedAt = subgroup * ${fragment * STAGED_STRIDE};
  let at = stagedAt + lane / 2 * ${STAGED_STRIDE} + lane % 2 * 8;
  let row = firstRow + subgroupRow + lane / 2;
  let column = firstOutput + subgroupOutput + lane % 2 * 8;
  ${unroll(
    rowsOfSubgroup / fragment,
    (r) =>
      unroll(
        outputsOfSubgroup / fragment,
        (c) => `{
    ${unroll(
      matrices.length,
      (m) => `${storeSquare(r, m, c)}
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a${m} = stagedVector(at);
    let b${m} = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();`,
    )}
${
  gated
    ? `write(row + ${r * fragment}, column + ${c * fragment}, a0, b0, a1, b1);`
    : `write(row + ${r * fragment}, column + ${c * fragment}, a0);
    write(row + ${r * fragment}, column + ${c * fragment + 4}, b0);`
}
  }`,
        '\n  ',
      ),
    '\n  ',
  )}
}`;
  }
}

/** Columns of the output that a workgroup computes: half of its rows of weights where these are gates and ups. */
const outputsOf = ({columns}: ProductTile, gated: boolean): number => (gated ? columns / 2 : columns);
