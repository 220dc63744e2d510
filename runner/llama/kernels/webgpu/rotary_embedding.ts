import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, rowComponents, workgroupIndex} from '../../../../src/internal';

const THREADS = 64;

interface RotaryVariant {
  /** Elements of half a row, each of so many components. */
  half: number;
  components: 1 | 4;
}

/** float32 `[heads, length, headDim]`: consecutive heads of `x`, rotated by the positions of their rows. */
export class RotaryEmbeddingProgram extends AttentionProgram<RotaryVariant> {
  /**
   * @param x float32 `[allHeads, length, headDim]`.
   * @param cos float32 `[positions, headDim]`.
   * @param signedSin float32 `[positions, headDim]`: minus the sine, then the sine.
   * @param start position of the first row.
   */
  constructor(
    {x, cos, signedSin}: Record<'x' | 'cos' | 'signedSin', TensorInfo>,
    start: number,
    firstHead: number,
    heads: number,
  ) {
    const [, length, headDim] = x.shape;
    const components = rowComponents(headDim / 2);
    const half = headDim / 2 / components;
    super({
      name: 'RotaryEmbedding',
      inputs: {
        x: {tensor: x, components},
        cos: {tensor: cos, components},
        signedSin: {tensor: signedSin, components},
      },
      outputShape: [heads, length, headDim],
      outputType: 'float32',
      outputComponents: components,
      threads: THREADS,
      workgroups: Math.ceil((heads * length * half) / THREADS),
      uniforms: {firstHead: {type: 'i32', value: firstHead}, start: {type: 'i32', value: start}},
      variant: {half, components},
    });
  }

  protected shader({half, components}: RotaryVariant): string {
    return `
// An invocation turns ${components === 4 ? 'four pairs' : 'one pair'}: an element of the first half of a row with its partner in the second.
${workgroupIndex}
fn main(index : i32) {
  let pair = workgroupIndex() * ${THREADS} + i32(localIndex);
  let row = pair / ${half};
  let i = pair % ${half};
  let length = uniforms.outShape.y;
  if (row < uniforms.outShape.x * length) {
    let at = row * ${2 * half} + i;
    let source = at + uniforms.firstHead * length * ${2 * half};
    let angle = (uniforms.start + row % length) * ${2 * half} + i;
    let a = x[source];
    let b = x[source + ${half}];
    result[at] = a * cos[angle] + b * signedSin[angle];
    result[at + ${half}] = b * cos[angle + ${half}] + a * signedSin[angle + ${half}];
  }
}`;
  }
}
