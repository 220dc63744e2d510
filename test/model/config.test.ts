import {expect} from 'chai';
import {parseConfig} from '../../demo/llama/config';
import {fixture} from '../environment';
import {tinyConfig} from './tiny_checkpoint';

describe('parseConfig', () => {
  it("reads the demo checkpoint's config.json", async () => {
    const json = JSON.parse(new TextDecoder().decode(await fixture('demo/public/model/config.json')));
    expect(parseConfig(json)).to.deep.equal({
      vocabSize: 8192,
      hiddenSize: 256,
      intermediateSize: 704,
      layers: 8,
      heads: 4,
      keyValueHeads: 2,
      headDim: 64,
      rmsNormEpsilon: 1e-5,
      ropeTheta: 500_000,
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

  it('reads the rotary base where transformers 5 writes it', () => {
    const rope_parameters = {rope_type: 'default', rope_theta: 500_000};
    expect(parseConfig({...tinyConfig, rope_theta: undefined, rope_parameters}).ropeTheta).to.equal(500_000);
  });

  const refused: Array<[field: string, value: unknown, message: RegExp]> = [
    [
      'architectures',
      ['MistralForCausalLM'],
      /architectures is \["MistralForCausalLM"\]; accepted: .*LlamaForCausalLM/,
    ],
    ['architectures', undefined, /architectures is missing/],
    ['rope_scaling', {rope_type: 'llama3', factor: 8}, /rope_scaling is .*llama3.*; accepted: null/],
    ['rope_scaling', {type: 'linear', factor: 2}, /rope_scaling is .*linear.*; accepted: null/],
    ['rope_parameters', {rope_type: 'yarn'}, /rope_parameters is .*yarn/],
    ['quantization_config', {bits: 4}, /quantization_config is \{"bits":4\}; accepted: null/],
    ['hidden_act', 'gelu', /hidden_act is "gelu"; accepted: "silu"/],
    ['attention_bias', true, /attention_bias is true; accepted: false/],
    ['mlp_bias', true, /mlp_bias is true; accepted: false/],
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

  it('refuses what is not an object', () => {
    expect(() => parseConfig([])).to.throw(/config\.json: got \[\]; accepted: an object/);
  });
});
