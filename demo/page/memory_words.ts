import type {BackendName} from '../backend_names';
import type {ModelInfo} from '../engine/protocol';
import {formatBytes, formatTokens} from './format';
import type {KnownModel} from './known_models';

/** A context to compare models by. */
const COMMON_CONTEXT = 8192;

/** Bytes that a model takes with a context of 8,192 tokens, before it is loaded. */
export function expectedMemory(
  {bytes, parameters, layers, keyValueHeads, headDim}: KnownModel,
  backend: BackendName,
): number {
  const values = 2 * layers * keyValueHeads * headDim * COMMON_CONTEXT;
  // On WebGPU matrices stay quantised and a context is float16; elsewhere all is float32.
  return backend === 'webgpu' ? bytes + 2 * values : 4 * (parameters + values);
}

/** What a model by name is and takes, for who is about to choose it. */
export function describeKnown(model: KnownModel, backend: BackendName, isStored: boolean): string {
  return [
    `${model.name}: ${isStored ? 'in your storage' : `${formatBytes(model.bytes)} to download, once`}`,
    model.licence,
    `about ${formatBytes(expectedMemory(model, backend))} of memory with ${formatTokens(COMMON_CONTEXT)} of context`,
  ].join('; ');
}

/** By what a context is limited. */
const LIMIT_WORDS: Record<ModelInfo['contextLimit'], string> = {
  model: '',
  device: ', the most that this device reads at once',
  page: ', the most that this page offers',
};

/**
 * What the model takes on the backend and what its contexts will, for who is about to fill one.
 *
 * @param gibibytes of the machine, as far as the browser says it: rounded, and at most some number.
 */
export function describeFit(model: ModelInfo, gibibytes: number | undefined): string {
  const {contextLength, contextLimit, weightBytes, cacheBytesPerToken} = model;
  const whole = contextLength * cacheBytesPerToken;
  const words = [
    `Memory: ${formatBytes(weightBytes)} for the model, and up to ${formatBytes(whole)} for a context of ` +
      `${formatTokens(contextLength)}${LIMIT_WORDS[contextLimit]} (${formatBytes(1000 * cacheBytesPerToken)} for 1,000); ` +
      'side by side takes two.',
  ];
  if (gibibytes !== undefined) {
    words.push(`This machine has ${gibibytes} GiB or more; how much its graphics has, browsers do not say.`);
    const most = weightBytes + 2 * whole;
    if (most > (gibibytes * 2 ** 30) / 2) words.push('That is tight: keep to shorter contexts.');
  }
  return words.join(' ');
}
