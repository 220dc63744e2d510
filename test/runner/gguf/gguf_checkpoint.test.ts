import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {openCheckpoint} from '../../../runner/llama/checkpoint';
import {LlamaModel} from '../../../runner/llama/model';
import {createTokenizer, encode} from '../../../runner/tokenizer';
import {describeBackends, fixture} from '../../setup/environment';
import {rejection} from '../llama/tiny/random_checkpoint';
import {type BrokenFile, readBrokenFiles, readReference} from './references';

/** How the error of each file begins, after its name, that is well formed and of no model that can be run. */
const REFUSALS: Record<string, string> = {
  'architecture-missing.gguf':
    'metadata "general.architecture": missing; accepted: "llama", "qwen2", "qwen3", "gemma3"',
  'architecture-type.gguf': 'metadata "general.architecture": 7; accepted: "llama", "qwen2", "qwen3", "gemma3"',
  'architecture-unknown.gguf': 'metadata "general.architecture": "zzz"; accepted: "llama", "qwen2", "qwen3", "gemma3"',
  'metadata-missing.gguf': 'metadata "llama.embedding_length": missing; accepted: a positive integer',
  'metadata-type.gguf': 'metadata "llama.block_count": "1"; accepted: a positive integer',
  'heads-zero.gguf': 'metadata "llama.attention.head_count": 0; accepted: a positive integer',
  'tokens-missing.gguf': 'metadata "tokenizer.ggml.tokens": missing; accepted: a list of tokens',
  'tensor-missing.gguf': 'tensor "blk.0.attn_v.weight" is missing; the file has',
  'tensor-shape.gguf': 'tensor "blk.0.attn_v.weight" has shape [8,4]; accepted: [4,8], by what the metadata say',
};

/** Of `valid.gguf` (README.md): tokens by llama.cpp, logits in float64 over the dequantised weights. */
interface ValidModel {
  tokens: {text: string; ids: number[]}[];
  runs: {ids: number[]; logits: number[]; greedy: number[]}[];
}

const openFile = async (name: string) => openCheckpoint([new File([await fixture(`test/runner/gguf/${name}`)], name)]);

describe('checkpoints in GGUF', () => {
  let files: BrokenFile[];
  before(async () => {
    files = await readBrokenFiles();
  });

  for (const [name, wanted] of Object.entries(REFUSALS)) {
    it(`refuses ${name}`, async () => {
      const {bytes} = files.find(({file}) => file === name)!;
      const message = await rejection(openCheckpoint([new File([bytes], name)]));
      expect(message.slice(0, name.length + 2 + wanted.length)).to.equal(`${name}: ${wanted}`);
    });
  }

  it('refuses every file that is to be', async () => {
    const refused: string[] = [];
    for (const {file, bytes} of files) {
      await openCheckpoint([new File([bytes], file)]).catch(() => refused.push(file));
    }
    expect(refused).to.include.members(files.filter((of) => of.expect === 'refuse').map(({file}) => file));
    expect(refused).not.to.include('base.gguf');
  });

  it('takes one file, whole', async () => {
    const bytes = await fixture('test/runner/gguf/valid.gguf');
    const two = ['a.gguf', 'b.gguf'].map((name) => new File([bytes], name));
    expect(await rejection(openCheckpoint(two))).to.equal('a.gguf, b.gguf: came together; accepted: one .gguf file');
    const part = new File([bytes], 'x-00001-of-00003.gguf');
    expect(await rejection(openCheckpoint([part]))).to.equal(
      'x-00001-of-00003.gguf: is the first of 3 files; accepted: a model in one file',
    );
  });

  it('has the tokens of llama.cpp', async () => {
    const {tokens} = (await readReference('valid_model.json')) as ValidModel;
    const checkpoint = await openFile('valid.gguf');
    const tokenizer = createTokenizer(checkpoint.tokenizer);
    for (const {text, ids} of tokens) expect(encode(tokenizer, text), text).to.deep.equal(ids);
    expect(checkpoint.chat?.template).to.be.a('string');
  });
});

describeBackends('a model in GGUF', (backend) => {
  it('has the logits of its dequantised weights, and goes on as they say', async () => {
    await tf.setBackend(backend);
    const {runs} = (await readReference('valid_model.json')) as ValidModel;
    const before = tf.memory().numTensors;
    const model = await LlamaModel.load(await openFile('valid.gguf'));
    for (const {ids, logits: expected, greedy} of runs) {
      const {logits, cache} = await model.prefill(ids);
      const got = await logits.data();
      const norm = Math.hypot(...expected);
      const error = Math.hypot(...expected.map((x, i) => got[i] - x)) / norm;
      expect(error).to.be.at.most(backend === 'cpu' ? 1e-5 : 1e-3);
      let next = logits;
      for (const id of greedy) {
        const best = Array.from(await next.data()).reduce((most, x, i, all) => (x > all[most] ? i : most), 0);
        expect(best).to.equal(id);
        next.dispose();
        next = model.decode(id, cache);
      }
      next.dispose();
      cache.dispose();
    }
    model.dispose();
    expect(tf.memory().numTensors).to.equal(before);
  }).timeout(120_000);
});
