import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {AttentionRequest} from '../../attention/attention_call.js';
import {AttentionProgram, i32} from './runtime/program.js';
import {keyEnd} from './wgsl/key_lengths.js';

type HeadInputs = Pick<AttentionRequest['inputs'], 'keyLengths' | 'alibiSlopes' | 'sinks'>;

/**
 * What a call says of each head where it has slopes or sinks: float32 `[batch * heads, 4]`, the end of the keys that are not
 * padding, the slope and the sink, both in units of log2, and a zero. One storage buffer for all three, since every device has eight and
 * the gradients take seven others.
 */
export function headForms(backend: WebGPUBackend, {inputs, geometry}: AttentionRequest): TensorInfo {
  return new HeadFormsProgram(inputs, geometry).run(backend);
}

interface HeadFormsVariant {
  padded: boolean;
  slopes: boolean;
  sinks: boolean;
}

export class HeadFormsProgram extends AttentionProgram<HeadFormsVariant> {
  constructor(
    {keyLengths, alibiSlopes, sinks}: HeadInputs,
    {batch, heads, keyLength}: Pick<AttentionRequest['geometry'], 'batch' | 'heads' | 'keyLength'>,
  ) {
    super({
      name: 'HeadForms',
      inputs: {keyLengths, alibiSlopes, sinks},
      outputShape: [batch * heads, 4],
      outputComponents: 4,
      uniforms: {heads: i32(heads), keyLength: i32(keyLength)},
      variant: {padded: keyLengths !== undefined, slopes: alibiSlopes !== undefined, sinks: sinks !== undefined},
    });
  }

  protected shader({padded, slopes, sinks}: HeadFormsVariant): string {
    const ofHead = (isThere: boolean, name: string) =>
      isThere ? `${Math.LOG2E}f * ${name}[head % uniforms.heads]` : '0.0';
    return `
// An invocation writes what is known of one head.
${keyEnd({padded})}

fn main(head : i32) {
  if (head < uniforms.invocations) {
    result[head] = vec4<f32>(f32(keyEnd(head)), ${ofHead(slopes, 'alibiSlopes')}, ${ofHead(sinks, 'sinks')}, 0.0);
  }
}`;
  }
}
