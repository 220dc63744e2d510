import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, rowComponents, workgroupIndex} from '../../../../src/internal';
import type {Activation} from '../gated_activation';
import {activationText} from './activation_text';

const THREADS = 64;

interface GatedActivationVariant {
  activation: Activation;
  components: 1 | 4;
}

/** float32 `[rows, columns]`: `activation(gate) · up`, of float32 `[2, rows, columns]`. */
export class GatedActivationProgram extends AttentionProgram<GatedActivationVariant> {
  constructor(gateAndUp: TensorInfo, activation: Activation) {
    const [, rows, columns] = gateAndUp.shape;
    // Seen as two rows of all values: they need not be looked at by row.
    const components = rowComponents(rows * columns);
    const count = (rows * columns) / components;
    super({
      name: 'GatedActivation',
      inputs: {gateAndUp: {tensor: gateAndUp, components}},
      outputShape: [rows, columns],
      outputType: 'float32',
      outputComponents: components,
      threads: THREADS,
      workgroups: Math.ceil(count / THREADS),
      uniforms: {count: {type: 'i32', value: count}},
      variant: {activation, components},
    });
  }

  protected shader({activation, components}: GatedActivationVariant): string {
    const one = components === 4 ? 'vec4<f32>(1.0)' : '1.0';
    return `
// An invocation computes one element, of ${components === 4 ? 'four values' : 'one value'}. All gates stand before all ups.
${workgroupIndex}
fn main(index : i32) {
  let i = workgroupIndex() * ${THREADS} + i32(localIndex);
  if (i < uniforms.count) {
    let gate = gateAndUp[i];
    result[i] = ${activationText(activation, 'gate', one)} * gateAndUp[uniforms.count + i];
  }
}`;
  }
}
