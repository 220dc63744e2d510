import {expect} from 'chai';
import {parseConfig} from '../../../runner/llama/config';
import {fixture} from '../../setup/environment';
import {tinyConfig} from './tiny_checkpoint';

const llama3 = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

describe('parseConfig', () => {
  it("reads the demo checkpoint's config.json", async () => {
    const json = JSON.parse(new TextDecoder().decode(await fixture('demo/public/model/config.json')));
    expect(parseConfig(json)).to.deep.equal({
      architecture: 'LlamaForCausalLM',
      vocabSize: 8192,
      hiddenSize: 256,
      intermediateSize: 704,
      layers: 8,
      heads: 4,
      keyValueHeads: 2,
      headDim: 64,
      inputBias: false,
      outputBias: false,
      mlpBias: false,
      rmsNormEpsilon: 1e-5,
      ropeTheta: 500_000,
      ropeScaling: null,
      maxPositions: 16_384,
      tiedHead: true,
      endTokens: [1],
    });
  });

  it('takes the defaults of transformers for what is left out', () => {
    const config = parseConfig({
      ...tinyConfig,
      hidden_size: 32,
      num_key_value_heads: undefined,
      head_dim: undefined,
      rms_norm_eps: undefined,
      rope_theta: undefined,
      tie_word_embeddings: undefined,
    });
    expect(config).to.include({
      keyValueHeads: 4,
      headDim: 8,
      rmsNormEpsilon: 1e-6,
      ropeTheta: 10_000,
      tiedHead: false,
    });
    expect(config.endTokens).to.deep.equal([]);
  });

  it("takes Qwen2's biases from its architecture, Llama's from its fields", () => {
    const qwen2 = {...tinyConfig, architectures: ['Qwen2ForCausalLM'], max_position_embeddings: undefined};
    const biases = ({inputBias, outputBias, mlpBias}: ReturnType<typeof parseConfig>) => [
      inputBias,
      outputBias,
      mlpBias,
    ];
    expect(biases(parseConfig(qwen2))).to.deep.equal([true, false, false]);
    expect(parseConfig(qwen2).maxPositions).to.equal(32_768);
    expect(biases(parseConfig(tinyConfig))).to.deep.equal([false, false, false]);
    expect(biases(parseConfig({...tinyConfig, attention_bias: true}))).to.deep.equal([true, true, false]);
    expect(biases(parseConfig({...tinyConfig, mlp_bias: true}))).to.deep.equal([false, false, true]);
  });

  it('reads the rotary base where transformers 5 writes it, or at the top', () => {
    const rope_parameters = {rope_type: 'default', rope_theta: 500_000};
    expect(parseConfig({...tinyConfig, rope_theta: undefined, rope_parameters}).ropeTheta).to.equal(500_000);
    expect(parseConfig({...tinyConfig, rope_parameters}).ropeTheta).to.equal(500_000);
    const withoutBase = {rope_type: 'default'};
    expect(parseConfig({...tinyConfig, rope_theta: 77, rope_parameters: withoutBase}).ropeTheta).to.equal(77);
  });

  it('reads the rotary scaling in every way that it is written', () => {
    const scaling = (fields: Record<string, unknown>) => parseConfig({...tinyConfig, ...fields}).ropeScaling;
    const expected = {
      type: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalMaxPositions: 8192,
    };
    expect(scaling({rope_scaling: llama3})).to.deep.equal(expected);
    expect(scaling({rope_scaling: {...llama3, rope_type: undefined, type: 'llama3'}})).to.deep.equal(expected);
    // Written by hand for runners that know only the older field.
    expect(scaling({rope_scaling: {...llama3, type: 'linear'}})).to.deep.equal(expected);
    expect(scaling({rope_parameters: {...llama3, rope_theta: 500_000}})).to.deep.equal(expected);
    expect(scaling({rope_parameters: llama3, rope_scaling: llama3})).to.deep.equal(expected);
    expect(scaling({rope_scaling: {type: 'linear', factor: 2.5}})).to.deep.equal({type: 'linear', factor: 2.5});
    expect(scaling({rope_scaling: {rope_type: 'default'}})).to.equal(null);
    expect(scaling({rope_scaling: null, rope_parameters: null})).to.equal(null);
  });

  it('accepts a sliding window that slides over no layer', () => {
    const qwen2 = {...tinyConfig, architectures: ['Qwen2ForCausalLM'], sliding_window: 64};
    expect(() => parseConfig(qwen2)).not.to.throw();
    expect(() => parseConfig({...qwen2, use_sliding_window: false, max_window_layers: 1})).not.to.throw();
    expect(() => parseConfig({...qwen2, use_sliding_window: true, max_window_layers: 2})).not.to.throw();
    expect(() => parseConfig({...qwen2, use_sliding_window: true, sliding_window: null})).not.to.throw();
    expect(() => parseConfig({...tinyConfig, layer_types: ['full_attention', 'full_attention']})).not.to.throw();
  });

  it("refuses a sliding window that slides over some of Qwen2's layers", () => {
    const qwen2 = {...tinyConfig, architectures: ['Qwen2ForCausalLM'], use_sliding_window: true, max_window_layers: 1};
    for (const config of [qwen2, {...qwen2, sliding_window: 64}]) {
      expect(() => parseConfig(config)).to.throw(/use_sliding_window is true; accepted: false, or max_window_layers/);
    }
  });

  const refused: Array<[field: string, value: unknown, message: RegExp]> = [
    [
      'architectures',
      ['MistralForCausalLM'],
      /architectures is \["MistralForCausalLM"\]; accepted: .*LlamaForCausalLM/,
    ],
    ['architectures', undefined, /architectures is missing/],
    [
      'architectures',
      'LlamaForCausalLM',
      /architectures is "LlamaForCausalLM"; accepted: \["LlamaForCausalLM"\], \["Qwen2/,
    ],
    ['rope_scaling', {type: 'dynamic', factor: 2}, /rope_scaling\.type is "dynamic"; accepted: .*"linear", "llama3"/],
    ['rope_scaling', {factor: 2}, /rope_scaling\.rope_type is missing; accepted/],
    ['rope_scaling', 'linear', /rope_scaling is "linear"; accepted: an object, null/],
    ['rope_scaling', {type: 'linear', factor: 0.5}, /rope_scaling\.factor is 0\.5; accepted: a number of 1 or more/],
    ['rope_scaling', {type: 'linear'}, /rope_scaling\.factor is missing; accepted: a positive number/],
    [
      'rope_scaling',
      {...llama3, high_freq_factor: 1},
      /rope_scaling\.high_freq_factor is 1; .* above low_freq_factor \(1\)/,
    ],
    ['rope_scaling', {...llama3, low_freq_factor: 'low'}, /rope_scaling\.low_freq_factor is "low"; accepted/],
    [
      'rope_scaling',
      {...llama3, original_max_position_embeddings: undefined},
      /rope_scaling\.original_max_position_embeddings is missing; accepted: a positive integer/,
    ],
    [
      'rope_parameters',
      {rope_type: 'yarn'},
      /rope_parameters\.rope_type is "yarn"; accepted: "default", "linear", "llama3"/,
    ],
    [
      'rope_parameters',
      {rope_type: 'default', partial_rotary_factor: 0.5},
      /partial_rotary_factor is 0\.5; accepted: 1/,
    ],
    ['partial_rotary_factor', 0.5, /partial_rotary_factor is 0\.5; accepted: 1/],
    ['rope_theta', '1e6', /rope_theta is "1e6"; accepted: a positive number/],
    ['sliding_window', 4096, /sliding_window is 4096; accepted: null/],
    ['layer_types', ['full_attention', 'sliding_attention'], /layer_types is \["full_attention","sliding_attention"\]/],
    ['quantization_config', {bits: 4}, /quantization_config is \{"bits":4\}; accepted: null/],
    ['hidden_act', 'gelu', /hidden_act is "gelu"; accepted: "silu"/],
    ['attention_bias', 'yes', /attention_bias is "yes"; accepted: true, false/],
    ['mlp_bias', 1, /mlp_bias is 1; accepted: true, false/],
    ['num_key_value_heads', 3, /num_key_value_heads is 3; accepted: a divisor of num_attention_heads \(4\)/],
    ['head_dim', 7, /head_dim is 7; accepted: an even number/],
    ['hidden_size', 0, /hidden_size is 0; accepted: a positive integer/],
    ['vocab_size', undefined, /vocab_size is missing; accepted: a positive integer/],
    ['rms_norm_eps', 'small', /rms_norm_eps is "small"; accepted: a positive number/],
    ['tie_word_embeddings', 1, /tie_word_embeddings is 1; accepted: true, false/],
    ['eos_token_id', 'end', /eos_token_id is "end"; accepted: a token id/],
  ];
  for (const [field, value, message] of refused) {
    it(`refuses ${field} ${JSON.stringify(value)}`, () => {
      expect(() => parseConfig({...tinyConfig, [field]: value})).to.throw(message);
    });
  }

  it('refuses two rotary scalings that differ', () => {
    const twice = {...tinyConfig, rope_scaling: {type: 'linear', factor: 2}, rope_parameters: llama3};
    expect(() => parseConfig(twice)).to.throw(/rope_scaling is .*linear.*; accepted: the scaling in rope_parameters/);
  });
});
