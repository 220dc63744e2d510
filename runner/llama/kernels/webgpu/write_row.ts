import {AttentionProgram, rowComponents, workgroupIndex} from '../../../../src/internal';
import type {WriteRowInputs} from '../write_row';

const THREADS = 64;

interface WriteRowVariant {
  /** Elements of a row, each of so many components. */
  elements: number;
}

/** float32 `[1, keyValueHeads, rows, headDim]`: a page with one more row. */
export class WriteRowProgram extends AttentionProgram<WriteRowVariant> {
  constructor({page, row, at}: WriteRowInputs) {
    const [, heads, rows, headDim] = page.shape;
    const components = rowComponents(headDim);
    const elements = headDim / components;
    super({
      name: 'WriteRow',
      inputs: {
        page: {tensor: page, components},
        row: {tensor: row, components},
        at: {tensor: at, components: 1},
      },
      outputShape: page.shape,
      outputType: 'float32',
      outputComponents: components,
      threads: THREADS,
      workgroups: Math.ceil((heads * rows * elements) / THREADS),
      uniforms: {},
      variant: {elements},
    });
  }

  protected shader({elements}: WriteRowVariant): string {
    return `
// An invocation writes one element: of the page, and of the row where its row is the one.
${workgroupIndex}
fn main(index : i32) {
  let i = workgroupIndex() * ${THREADS} + i32(localIndex);
  let rows = uniforms.outShape.z;
  let pageRow = i / ${elements};
  if (pageRow < uniforms.outShape.y * rows) {
    let head = pageRow / rows;
    result[i] = page[i] + at[pageRow % rows] * row[head * ${elements} + i % ${elements}];
  }
}`;
  }
}
