import type {serialization} from '@tensorflow/tfjs-core';
import type {Constraint} from '@tensorflow/tfjs-layers/dist/constraints.js';
import type {Initializer} from '@tensorflow/tfjs-layers/dist/initializers.js';
import type {DenseLayerArgs} from '@tensorflow/tfjs-layers/dist/layers/core.js';
import type {Regularizer} from '@tensorflow/tfjs-layers/dist/regularizers.js';
import {layers} from '@tensorflow/tfjs-layers';
import {check} from '../ops/check_arguments.js';

const names = [
  'kernelInitializer',
  'biasInitializer',
  'kernelRegularizer',
  'biasRegularizer',
  'kernelConstraint',
  'biasConstraint',
] as const;

/** What kernels and biases start from, are held to and are fined for, of the classes of tfjs-layers; and the layer that says it as a config. */
export interface KernelArguments {
  kernelInitializer: Initializer;
  biasInitializer: Initializer;
  kernelRegularizer?: Regularizer;
  biasRegularizer?: Regularizer;
  kernelConstraint?: Constraint;
  biasConstraint?: Constraint;
  getConfig(): serialization.ConfigDict;
}

/**
 * Arguments as a layer of tfjs takes them: names, configs or objects. A dense layer, which is never built, makes them what they stand for, since tfjs-layers exports
 * no function that does.
 *
 * @param known names that the layer takes besides.
 */
export function parsedArguments(op: string, args: object, known: readonly string[]): KernelArguments {
  const all: readonly string[] = [...known, ...names];
  for (const name of Object.keys(args)) {
    check(all.includes(name), op, 'arguments', `got '${name}'`, all.join(', '));
  }
  const given = Object.fromEntries(names.map((name) => [name, (args as DenseLayerArgs)[name]]));
  return layers.dense({kernelInitializer: 'glorotUniform', ...defined(given), units: 1}) as unknown as KernelArguments;
}

export function configOf(kernels: KernelArguments): serialization.ConfigDict {
  const config = kernels.getConfig();
  return Object.fromEntries(names.map((name) => [name, config[name]]));
}

const defined = (args: object) => Object.fromEntries(Object.entries(args).filter(([, value]) => value != null));
