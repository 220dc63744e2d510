import {expect} from 'chai';
import {parseConfig, type LlamaConfig} from '../../../../runner/llama/config';
import {EVERY_LAYER, windowOf} from '../../../../runner/llama/sliding_window';
import {fixture} from '../../../setup/environment';
import {tinyConfig} from '../tiny/random_checkpoint';

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
      headNorms: false,
      postNorms: false,
      normOffset: 0,
      queryScale: 1,
      embeddingScale: 1,
      activation: 'silu',
      rmsNormEpsilon: 1e-5,
      ropeTheta: 500_000,
      ropeScaling: null,
      localRopeTheta: null,
      maxPositions: 16_384,
      slidingWindow: null,
      tiedHead: true,
      endTokens: [1],
    });
  });

  const defaults: Array<[architecture: string, expected: Partial<LlamaConfig>]> = [
    ['LlamaForCausalLM', {keyValueHeads: 64, headDim: 8, maxPositions: 2048, slidingWindow: null, endTokens: [2]}],
    [
      'MistralForCausalLM',
      {
        keyValueHeads: 8,
        headDim: 8,
        maxPositions: 131_072,
        slidingWindow: {tokens: 4096, layers: EVERY_LAYER},
        endTokens: [2],
      },
    ],
    ['Qwen2ForCausalLM', {keyValueHeads: 32, headDim: 8, maxPositions: 32_768, slidingWindow: null, endTokens: []}],
    ['Qwen3ForCausalLM', {keyValueHeads: 32, headDim: 128, maxPositions: 32_768, slidingWindow: null, endTokens: []}],
    [
      'Gemma3ForCausalLM',
      {
        ...{keyValueHeads: 4, headDim: 256, maxPositions: 131_072, endTokens: [1], tiedHead: true, queryScale: 1},
        ...{
          ropeTheta: 1_000_000,
          localRopeTheta: 10_000,
          slidingWindow: {tokens: 4096, layers: {first: 0, fullEvery: 6}},
        },
      },
    ],
  ];
  for (const [architecture, expected] of defaults) {
    it(`takes the defaults of transformers for what a ${architecture} leaves out`, () => {
      const config = parseConfig({
        architectures: [architecture],
        vocab_size: 61,
        hidden_size: 512,
        intermediate_size: 52,
        num_hidden_layers: 2,
        num_attention_heads: 64,
      });
      const same = {rmsNormEpsilon: 1e-6, ropeTheta: 10_000, ropeScaling: null, tiedHead: false};
      expect(config).to.deep.include({architecture, ...same, ...expected});
    });
  }

  it('refuses a default that does not fit the other fields', () => {
    const mistral = {...tinyConfig, architectures: ['MistralForCausalLM'], num_key_value_heads: undefined};
    expect(() => parseConfig(mistral)).to.throw(/num_key_value_heads is 8; accepted: a divisor of .* \(4\)/);
  });

  it('takes null as transformers does', () => {
    const mistral = {...tinyConfig, architectures: ['MistralForCausalLM'], sliding_window: null};
    expect(parseConfig({...mistral, num_key_value_heads: null})).to.include({keyValueHeads: 4, slidingWindow: null});
    expect(parseConfig({...tinyConfig, eos_token_id: null}).endTokens).to.deep.equal([]);
  });

  const architectures: Array<[architecture: string, byDefault: boolean[], asked: boolean[]]> = [
    ['LlamaForCausalLM', [false, false, false, false], [true, true, true, false]],
    ['MistralForCausalLM', [false, false, false, false], [false, false, false, false]],
    ['Qwen2ForCausalLM', [true, false, false, false], [true, false, false, false]],
    ['Qwen3ForCausalLM', [false, false, false, true], [true, true, false, true]],
  ];
  for (const [architecture, byDefault, asked] of architectures) {
    it(`knows the biases and norms of a ${architecture}, those of its fields and its own`, () => {
      const parts = (fields: object) => {
        const config = parseConfig({...tinyConfig, architectures: [architecture], ...fields});
        return [config.inputBias, config.outputBias, config.mlpBias, config.headNorms];
      };
      expect(parts({})).to.deep.equal(byDefault);
      expect(parts({attention_bias: true, mlp_bias: true})).to.deep.equal(asked);
    });
  }

  it('reads the rotary base where transformers 5 writes it, or at the top', () => {
    const rope_parameters = {rope_type: 'default', rope_theta: 500_000};
    expect(parseConfig({...tinyConfig, rope_theta: undefined, rope_parameters}).ropeTheta).to.equal(500_000);
    expect(parseConfig({...tinyConfig, rope_parameters}).ropeTheta).to.equal(500_000);
    const withoutType = {rope_theta: 500_000};
    expect(parseConfig({...tinyConfig, rope_parameters: withoutType})).to.include({
      ropeTheta: 500_000,
      ropeScaling: null,
    });
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
    const ofTheContext = {...llama3, original_max_position_embeddings: undefined};
    expect(scaling({rope_scaling: ofTheContext, max_position_embeddings: 8192})).to.deep.equal(expected);
    expect(scaling({rope_scaling: {type: 'linear', factor: 2.5}})).to.deep.equal({type: 'linear', factor: 2.5});
    expect(scaling({rope_scaling: {rope_type: 'default'}})).to.equal(null);
    expect(scaling({rope_scaling: null, rope_parameters: null})).to.equal(null);
  });

  const [full, sliding] = ['full_attention', 'sliding_attention'];
  const window = {sliding_window: 64};
  const used = {...window, use_sliding_window: true};
  const windows: Array<[architectures: string[], fields: object, sliding: number[]]> = [
    [['LlamaForCausalLM'], {layer_types: [full, full]}, []],
    [['LlamaForCausalLM'], {...window, use_sliding_window: false}, []],
    [['LlamaForCausalLM'], {...window, layer_types: [full, full]}, []],
    [['MistralForCausalLM'], window, [0, 1]],
    [['MistralForCausalLM'], {...window, use_sliding_window: false, layer_types: [full, full]}, [0, 1]],
    [['MistralForCausalLM'], {sliding_window: null}, []],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], window, []],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...window, use_sliding_window: false, max_window_layers: 0}, []],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...used, max_window_layers: 2}, []],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...used, sliding_window: null, max_window_layers: 0}, []],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...used, layer_types: [full, full], max_window_layers: 0}, []],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], used, []],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...used, num_hidden_layers: 29}, [28]],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...used, max_window_layers: 1}, [1]],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...used, max_window_layers: 0}, [0, 1]],
    [['Qwen2ForCausalLM', 'Qwen3ForCausalLM'], {...used, layer_types: [full, sliding], max_window_layers: 2}, [1]],
  ];
  for (const [architectures, fields, sliding] of windows) {
    for (const architecture of architectures) {
      it(`reads a window of 64 tokens in layers [${sliding}] from ${JSON.stringify(fields)} of a ${architecture}`, () => {
        const config = parseConfig({...tinyConfig, architectures: [architecture], ...fields});
        const ofLayers = Array.from({length: config.layers}, (_, layer) => windowOf(config, layer));
        expect(ofLayers).to.deep.equal(ofLayers.map((_, layer) => (sliding.includes(layer) ? 64 : undefined)));
        expect(config.maxPositions).to.equal(512);
      });
    }
  }

  const refusedOf: Array<[architecture: string, fields: object, message: RegExp]> = [
    ['LlamaForCausalLM', window, /sliding_window is 64; accepted: null/],
    [
      'LlamaForCausalLM',
      {layer_types: [full, sliding]},
      /layer_types is .*; accepted: a list of "full_attention" alone/,
    ],
    ['MistralForCausalLM', {sliding_window: 0}, /sliding_window is 0; accepted: a positive integer/],
    ['MistralForCausalLM', {layer_types: ['chunked_attention']}, /layer_types is \["chunked_attention"\]; accepted: /],
    ['Qwen3ForCausalLM', {...used, layer_types: [sliding]}, /layer_types is .*; accepted: one for each of 2 layers/],
    ['Qwen2ForCausalLM', {use_sliding_window: 1}, /use_sliding_window is 1; accepted: true, false/],
    [
      'Qwen2ForCausalLM',
      {...used, max_window_layers: -1},
      /max_window_layers is -1; accepted: an integer of 0 or more/,
    ],
    ['Qwen3ForCausalLM', {layer_types: [full, sliding]}, /layer_types is .*; accepted: .* alone, without a window/],
    ['Gemma3ForCausalLM', {sliding_window: null}, /sliding_window is null; accepted: a positive integer/],
    ['Gemma3ForCausalLM', {final_logit_softcapping: 30}, /final_logit_softcapping is 30; accepted: null/],
    ['Gemma3ForCausalLM', {hidden_activation: 'gelu'}, /hidden_activation is "gelu"; accepted: "gelu_pytorch_tanh"/],
    ['Gemma3ForCausalLM', {_sliding_window_pattern: 2}, /_sliding_window_pattern is 2; accepted: 6/],
    [
      'Gemma3ForCausalLM',
      {rope_parameters: {rope_type: 'default', rope_theta: 10_000}},
      /rope_parameters is .*; accepted: an object with full_attention and sliding_attention alone/,
    ],
    [
      'Gemma3ForCausalLM',
      {rope_parameters: {sliding_attention: {rope_type: 'linear', factor: 2}}},
      /rope_parameters\.sliding_attention\.rope_type is "linear"; accepted: "default"/,
    ],
    ['Gemma3ForConditionalGeneration', {}, /architectures is .*; accepted: .*"Gemma3ForCausalLM"/],
    ['Qwen3ForCausalLM', {attention_bias: 1}, /attention_bias is 1; accepted: true, false/],
  ];
  for (const [architecture, fields, message] of refusedOf) {
    it(`refuses ${JSON.stringify(fields)} of a ${architecture}`, () => {
      expect(() => parseConfig({...tinyConfig, architectures: [architecture], ...fields})).to.throw(message);
    });
  }

  const refused: Array<[field: string, value: unknown, message: RegExp]> = [
    [
      'architectures',
      ['Qwen3MoeForCausalLM'],
      /\["Qwen3MoeForCausalLM"\]; accepted: \["Llama\w+"\], \["Mistral\w+"\], \["Qwen2\w+"\], \["Qwen3ForCausalLM"\], \["Gemma3ForCausalLM"\]$/,
    ],
    ['architectures', undefined, /architectures is missing/],
    [
      'architectures',
      'LlamaForCausalLM',
      /architectures is "LlamaForCausalLM"; accepted: \["LlamaForCausalLM"\], \["Mis/,
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
      'rope_parameters',
      {rope_type: 'yarn'},
      /rope_parameters\.rope_type is "yarn"; accepted: "default", "linear", "llama3"/,
    ],
    [
      'rope_parameters',
      {rope_type: 'default', partial_rotary_factor: 0.5},
      /partial_rotary_factor is 0\.5; accepted: 1/,
    ],
    [
      'rope_parameters',
      {full_attention: {rope_type: 'default'}},
      /rope_parameters\.rope_type is missing; accepted: "default"/,
    ],
    [
      'rope_scaling',
      {rope_type: 'longrope', factor: 2},
      /rope_type is "longrope"; accepted: "default", "linear", "llama3"/,
    ],
    ['partial_rotary_factor', 0.5, /partial_rotary_factor is 0\.5; accepted: 1/],
    ['rope_theta', '1e6', /rope_theta is "1e6"; accepted: a positive number/],
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
