import type {TensorInfo} from '@tensorflow/tfjs-core';
import {rowDim} from '../../attention/attention_kernels.js';
import {AttentionProgram} from './runtime/program.js';
import {packFloat16} from './wgsl/float16.js';
import {rowComponents} from './wgsl/rows.js';

/** Float32 `[…, dim]` as two float16 a word, the first in the low half: int32 `[…, dim / 2]`. */
export class PackFloat16Program extends AttentionProgram<object> {
  constructor(x: TensorInfo) {
    super({
      name: 'PackFloat16',
      inputs: {x},
      outputShape: [...x.shape.slice(0, -1), x.shape[x.shape.length - 1] / 2],
      outputType: 'int32',
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation packs two values.
${packFloat16}

fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = i32(packedFloat16(vec4<f32>(x[2 * index], x[2 * index + 1], 0.0, 0.0)).x);
  }
}`;
  }
}

/** The float32 of packed rows, for all programs but that of decoding, which reads them as they are. */
export class UnpackedFloatsProgram extends AttentionProgram<{components: 1 | 4}> {
  constructor(words: TensorInfo) {
    const dim = rowDim(words);
    const components = rowComponents(dim);
    super({
      name: 'UnpackedFloats',
      inputs: {words},
      outputShape: [...words.shape.slice(0, -1), dim],
      outputComponents: components,
      variant: {components},
    });
  }

  protected shader({components}: {components: 1 | 4}): string {
    const pair = (at: string) => `unpack2x16float(bitcast<u32>(words[${at}]))`;
    return `
// An invocation unpacks ${components === 4 ? 'four values' : 'a value'}.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = ${components === 4 ? `vec4<f32>(${pair('2 * index')}, ${pair('2 * index + 1')})` : `${pair('index / 2')}[index % 2]`};
  }
}`;
  }
}
