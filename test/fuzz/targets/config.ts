import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import {openCheckpoint} from '../../../runner/llama/checkpoint';
import {parseConfig} from '../../../runner/llama/config';
import {LlamaModel} from '../../../runner/llama/model';
import {GREEDY, Sampler} from '../../../runner/llama/sample';
import {tinyConfig, tinyFiles, tinyIds} from '../../runner/llama/tiny/random_checkpoint';
import {Broken, bytesOf, jsonOf, type FuzzTarget} from '../fuzz_target';
import {mutateJson} from '../mutations';

const ROPES = [
  {rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64},
  {type: 'linear', factor: 2},
  {rope_type: 'default', rope_theta: 10_000},
];
const ARCHITECTURES = [
  'LlamaForCausalLM',
  'MistralForCausalLM',
  'Qwen2ForCausalLM',
  'Qwen3ForCausalLM',
  'Gemma3ForCausalLM',
];

/** Configs of a tiny model: what is accepted, and fits its weights, must load, run and give up everything again. */
export const config: FuzzTarget = {
  ending: 'json',
  make(random) {
    const valid = {
      ...tinyConfig,
      architectures: [random.pick(ARCHITECTURES)],
      ...(random.chance(0.4) && {rope_scaling: random.pick(ROPES)}),
      ...(random.chance(0.2) && {rope_parameters: random.pick(ROPES)}),
      ...(random.chance(0.3) && {sliding_window: 64, use_sliding_window: random.chance(0.5), max_window_layers: 1}),
      ...(random.chance(0.2) && {attention_bias: false, mlp_bias: false, hidden_act: 'silu'}),
    };
    return bytesOf(JSON.stringify(mutateJson(valid, random)) ?? '');
  },
  async run(input) {
    await tf.setBackend('cpu');
    const json = jsonOf<Record<string, unknown> | null>(input);
    if (typeof json !== 'object' || json === null || Array.isArray(json)) return;
    parseConfig(json);
    const checkpoint = await openCheckpoint(tinyFiles(json));
    const {numTensors} = tf.memory();
    const model = await LlamaModel.load(checkpoint);
    const {logits, cache} = await model.prefill(tinyIds(Math.min(5, model.maxLength)));
    try {
      await new Sampler(GREEDY).next(logits);
    } finally {
      logits.dispose();
      cache.dispose();
      model.dispose();
    }
    if (tf.memory().numTensors !== numTensors) throw new Broken('tensors are left behind');
  },
};
