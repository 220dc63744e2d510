import {registerKernel, type KernelFunc, type TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {withScratch} from '../../../../src/internal';
import '../../../quantised/webgpu/index';
import {ChooseToken, type ChooseTokenInputs} from '../choose_token';
import {GatedActivation, type GatedActivationAttrs, type GatedActivationInputs} from '../gated_activation';
import {RMSNorm, type RMSNormAttrs, type RMSNormInputs} from '../rms_norm';
import {RotaryEmbedding, type RotaryEmbeddingAttrs, type RotaryEmbeddingInputs} from '../rotary_embedding';
import {ChooseTokenProgram} from './choose_token';
import {GatedActivationProgram} from './gated_activation';
import {RMSNormProgram} from './rms_norm';
import {RotaryEmbeddingProgram} from './rotary_embedding';

// Importing this file registers the kernels of the model's ops, those of packed matrices too, for the webgpu backend. It loads no backend. Without them the
// ops are composed of tfjs's own, as on the other backends.

function register<Inputs, Attrs>(
  kernelName: string,
  kernelFunc: (inputs: Inputs, backend: WebGPUBackend, attrs: Attrs) => TensorInfo | TensorInfo[],
): void {
  registerKernel({
    kernelName,
    backendName: 'webgpu',
    kernelFunc: (({inputs, backend, attrs}: {inputs: Inputs; backend: WebGPUBackend; attrs: Attrs}) =>
      kernelFunc(inputs, backend, attrs)) as unknown as KernelFunc,
  });
}

register<RMSNormInputs, RMSNormAttrs>(RMSNorm, ({x, ...more}, backend, {epsilon}) =>
  new RMSNormProgram(x, epsilon, more).run(backend),
);

register<ChooseTokenInputs, object>(ChooseToken, ({logits, choice}, backend) =>
  new ChooseTokenProgram(logits, choice).run(backend),
);

register<GatedActivationInputs, GatedActivationAttrs>(GatedActivation, ({gateAndUp}, backend, {activation}) =>
  new GatedActivationProgram(gateAndUp, activation).run(backend),
);

register<RotaryEmbeddingInputs, RotaryEmbeddingAttrs>(RotaryEmbedding, (inputs, backend, {start, groups}) =>
  withScratch(backend, (_scratch, keep) => {
    let firstHead = 0;
    return groups.map((heads) => {
      const rotated = keep(new RotaryEmbeddingProgram(inputs, start, firstHead, heads).run(backend));
      firstHead += heads;
      return rotated;
    });
  }),
);
