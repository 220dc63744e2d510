import {expect} from 'chai';
import {configOfGGUF} from '../../../runner/gguf/gguf_config';
import {GGUFFile} from '../../../runner/gguf/gguf_file';
import type {LlamaConfig} from '../../../runner/llama/config';
import {windowOf} from '../../../runner/llama/sliding_window';
import {rejection} from '../llama/tiny/random_checkpoint';
import {VALUE_TYPE, type Written, type WrittenEntry, writeGGUF} from './write_gguf';

const {uint32, float32, bool, string, array} = VALUE_TYPE;
const list = (of: number, values: Written[]): WrittenEntry => ({type: array, value: {of, values}});
const whole = (value: number): WrittenEntry => ({type: uint32, value});
const real = (value: number): WrittenEntry => ({type: float32, value});

/** The config of a file of an architecture, of three layers unless `fields` say otherwise. */
async function configOf(architecture: string, fields: Record<string, WrittenEntry>): Promise<LlamaConfig> {
  const own: Record<string, WrittenEntry> = {
    block_count: whole(3),
    embedding_length: whole(96),
    feed_forward_length: whole(64),
    context_length: whole(2000),
    'attention.head_count': whole(4),
    'attention.key_length': whole(32),
    'attention.layer_norm_rms_epsilon': real(1e-6),
    ...fields,
  };
  const metadata: Record<string, WrittenEntry> = {
    'general.architecture': {type: string, value: architecture},
    ...Object.fromEntries(Object.entries(own).map(([name, entry]) => [`${architecture}.${name}`, entry])),
    'tokenizer.ggml.tokens': list(string, ['a', 'b']),
    'tokenizer.ggml.token_type': list(VALUE_TYPE.uint32, [1, 1]),
  };
  return configOfGGUF(await GGUFFile.open(new File([writeGGUF(metadata)], 'x.gguf')));
}

const window = {'attention.sliding_window': whole(512)};
const pattern = (entry: WrittenEntry) => ({...window, 'attention.sliding_window_pattern': entry});

describe('configOfGGUF', () => {
  for (const [architecture, fields, sliding] of [
    ['llama', {}, []],
    ['llama', window, [0, 1, 2]],
    ['gemma3', {...window, block_count: whole(7)}, [0, 1, 2, 3, 4, 6]],
    ['gemma3', pattern(whole(2)), [0, 2]],
    ['gemma3', pattern(list(bool, [false, true, false])), [1]],
  ] as Array<[string, Record<string, WrittenEntry>, number[]]>) {
    it(`reads a window in layers [${sliding}] of a ${architecture} from ${JSON.stringify(fields)}`, async () => {
      const config = await configOf(architecture, fields);
      const windows = Array.from({length: config.layers}, (_, layer) => windowOf(config, layer));
      expect(windows).to.deep.equal(windows.map((_, layer) => (sliding.includes(layer) ? 512 : undefined)));
      expect(config.maxPositions).to.equal(2000);
    });
  }

  it('knows what a gemma3 leaves out, and the scale of the queries of the one with 62 layers', async () => {
    const config = await configOf('gemma3', window);
    expect(config).to.include({ropeTheta: 1_000_000, localRopeTheta: 10_000, normOffset: 0, queryScale: 1});
    expect(config).to.include({activation: 'gelu', postNorms: true, headNorms: true, tiedHead: true});
    expect(config.embeddingScale).to.equal(Math.fround(Math.sqrt(96)));
    const large = await configOf('gemma3', {...window, block_count: whole(62), 'rope.freq_base_swa': real(500)});
    expect(large.queryScale).to.be.closeTo(Math.sqrt(32 / 24), 1e-12);
    expect(large.localRopeTheta).to.equal(500);
  });

  for (const [architecture, fields, message] of [
    ['qwen2', window, 'metadata "qwen2.attention.sliding_window": 512; accepted: none'],
    ['llama', pattern(whole(2)), 'metadata "llama.attention.sliding_window_pattern": 2; accepted: none'],
    ['gemma3', {}, 'metadata "gemma3.attention.sliding_window": missing; accepted: a positive integer'],
    [
      'gemma3',
      pattern(list(bool, [true, false])),
      'metadata "gemma3.attention.sliding_window_pattern": [true,false]; accepted: a positive integer, or a boolean for each of 3 layers',
    ],
    [
      'gemma3',
      {...window, final_logit_softcapping: real(30)},
      'metadata "gemma3.final_logit_softcapping": 30; accepted: 0',
    ],
    ['gemma3n', window, 'metadata "general.architecture": "gemma3n"; accepted: "llama", "qwen2", "qwen3", "gemma3"'],
  ] as Array<[string, Record<string, WrittenEntry>, string]>) {
    it(`refuses ${JSON.stringify(fields)} of a ${architecture}`, async () => {
      expect(await rejection(configOf(architecture, fields))).to.equal(`x.gguf: ${message}`);
    });
  }
});
