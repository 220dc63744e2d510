import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PrefillAttention} from '../../../runner/llama/attention';
import {PAGE_ROWS} from '../../../runner/llama/cache';
import {generate} from '../../../runner/llama/generate';
import {GatedActivation} from '../../../runner/llama/kernels/gated_activation';
import type {LlamaModel, PrefillRequest} from '../../../runner/llama/model';
import {describeBackends} from '../../setup/environment';
import {
  loadModel,
  rejection,
  tinyConfig,
  tinyFiles,
  tinyIds,
  tinyTensors,
  type StoredTensor,
} from './tiny/random_checkpoint';

function tinyModel(
  config: Record<string, unknown> = {},
  tensors: Record<string, StoredTensor> = {},
): Promise<LlamaModel> {
  return loadModel(tinyFiles({...tinyConfig, ...config}, {...tinyTensors(), ...tensors}));
}

async function prefillLogits(model: LlamaModel, ids: number[], request?: PrefillRequest): Promise<number[]> {
  const {logits, cache} = await model.prefill(ids, request);
  cache.dispose();
  return takeData(logits);
}

async function takeData(tensor: tf.Tensor): Promise<number[]> {
  const values = await tensor.data();
  tensor.dispose();
  return [...values];
}

function largestDifference(a: number[], b: number[]): number {
  expect(a.length).to.equal(b.length);
  // A NaN has to fail the test: Math.max passes it on.
  return Math.max(...a.map((x, i) => Math.abs(x - b[i])));
}

describeBackends('LlamaModel with a tiny random checkpoint', (backend) => {
  let tensorsBefore: number;
  before(() => tf.setBackend(backend));
  beforeEach(() => {
    tensorsBefore = tf.memory().numTensors;
  });
  afterEach(() => {
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensorsBefore);
  });

  it('attends alike with composed ops, flashAttention and pbsAttention at threshold 1', async () => {
    const model = await tinyModel();
    const ids = tinyIds(150);
    const options = {blockSize: 16, segmentSize: 32, threshold: 1};
    const [composed, flash, pbs] = await Promise.all(
      (['composed', 'flash', 'pbs'] as PrefillAttention[]).map((attention) =>
        prefillLogits(model, ids, {attention, options}),
      ),
    );
    expect(Math.max(...composed) - Math.min(...composed)).to.be.greaterThan(1);
    expect(largestDifference(flash, composed)).to.be.lessThan(1e-3);
    expect(largestDifference(pbs, composed)).to.be.lessThan(1e-3);
    model.dispose();
  });

  it('hands the options to pbsAttention', async () => {
    const model = await tinyModel();
    const ids = tinyIds(150);
    const exact = await prefillLogits(model, ids, {attention: 'flash'});
    const options = {blockSize: 16, segmentSize: 32, threshold: 0};
    const sparse = await prefillLogits(model, ids, {attention: 'pbs', options});
    expect(largestDifference(sparse, exact)).to.be.greaterThan(1e-2);
    model.dispose();
  });

  it('decodes each token as a prefill of all tokens so far would', async () => {
    const model = await tinyModel();
    const ids = tinyIds(9);
    const {logits, cache} = await model.prefill(ids.slice(0, 4));
    logits.dispose();
    for (let length = 5; length <= ids.length; ++length) {
      const decoded = await takeData(model.decode(ids[length - 1], cache));
      expect(cache.length).to.equal(length);
      const prefilled = await prefillLogits(model, ids.slice(0, length));
      expect(largestDifference(decoded, prefilled), `at ${length} tokens`).to.be.lessThan(1e-3);
    }
    cache.dispose();
    model.dispose();
  });

  it('takes the head from the embedding where it is tied, from lm_head where it is not', async () => {
    const ids = tinyIds(6);
    const embedding = tinyTensors()['model.embed_tokens.weight'];
    const doubled = new Float32Array(embedding.bytes.buffer).map((x) => 2 * x);
    const other = {...embedding, bytes: new Uint8Array(doubled.buffer)};
    const tied = await tinyModel();
    const untied = await tinyModel({tie_word_embeddings: false}, {'lm_head.weight': other});
    const [tiedLogits, untiedLogits] = [await prefillLogits(tied, ids), await prefillLogits(untied, ids)];
    expect(
      largestDifference(
        untiedLogits,
        tiedLogits.map((x) => 2 * x),
      ),
    ).to.be.lessThan(1e-3);
    tied.dispose();
    untied.dispose();
  });

  it('refuses prompts that it cannot run', async () => {
    const model = await tinyModel({max_position_embeddings: 8});
    expect(await rejection(model.prefill([]))).to.match(/no tokens; accepted: 1 or more/);
    expect(await rejection(model.prefill([3, 61]))).to.match(/token id is 61; accepted: integers from 0 to 60/);
    expect(await rejection(model.prefill([3, 1.5]))).to.match(/token id is 1\.5/);
    expect(await rejection(model.prefill(tinyIds(9)))).to.match(/would be 9 tokens; accepted: at most 8/);
    const {logits, cache} = await model.prefill(tinyIds(8));
    expect(() => model.decode(1, cache)).to.throw(/would be 9 tokens/);
    logits.dispose();
    cache.dispose();
    model.dispose();
  });

  it('shows each layer its queries and keys, and leaves nothing behind when a layer fails', async () => {
    const model = await tinyModel();
    const seen: string[] = [];
    const finished: number[] = [];
    await prefillLogits(model, tinyIds(5), {
      onAttention: (layer, query, key) => seen.push(`${layer}: [${query.shape}] [${key.shape}]`),
      onLayer: (layer) => void finished.push(layer),
    });
    expect(seen).to.deep.equal(['0: [1,4,5,8] [1,2,5,8]', '1: [1,4,5,8] [1,2,5,8]']);
    expect(finished).to.deep.equal([0, 1]);
    const failing = model.prefill(tinyIds(5), {
      onLayer: (layer) => {
        if (layer === 1) throw new Error('stopped');
      },
    });
    expect(await rejection(failing)).to.equal('stopped');
    model.dispose();
  });

  it('decodes past a page as a prefill would, and grows by whole pages alone', async function () {
    this.timeout(120_000);
    const model = await tinyModel();
    const ids = tinyIds(10 + PAGE_ROWS + 3);
    const {logits, cache} = await model.prefill(ids.slice(0, 10));
    logits.dispose();
    const bytes: number[] = [];
    for (let length = 11; length <= ids.length; ++length) {
      const decoded = model.decode(ids[length - 1], cache);
      bytes.push(tf.memory().numBytes);
      expect(cache.length).to.equal(length);
      if (length >= 10 + PAGE_ROWS - 1) {
        const prefilled = await prefillLogits(model, ids.slice(0, length));
        expect(largestDifference(await takeData(decoded), prefilled), `at ${length} tokens`).to.be.lessThan(1e-3);
      } else {
        decoded.dispose();
      }
    }
    // Two layers, keys and values, two heads of 8 in float32.
    const pageBytes = 2 * 2 * 2 * 8 * 4 * PAGE_ROWS;
    const growth = bytes.map((now) => now - bytes[0]);
    expect(new Set(growth.slice(0, PAGE_ROWS)), 'first page').to.deep.equal(new Set([0]));
    expect(new Set(growth.slice(PAGE_ROWS)), 'second page').to.deep.equal(new Set([pageBytes]));
    cache.dispose();
    model.dispose();
  });

  for (const [when, abortAt] of [
    ['before it begins', -1],
    ['in the prefill', 0],
    ['after a token', 1],
  ] as const) {
    it(`ends when it is aborted ${when}, and leaves nothing behind`, async () => {
      const model = await tinyModel();
      const controller = new AbortController();
      if (abortAt === -1) controller.abort();
      const layers: number[] = [];
      let tokens = 0;
      const running = generate(model, tinyIds(7), {
        maxTokens: 9,
        signal: controller.signal,
        onLayer: (layer) => {
          layers.push(layer);
          if (abortAt === 0) controller.abort();
        },
        onToken: (soFar) => {
          tokens = soFar.length;
          if (tokens === 2) controller.abort();
        },
      });
      const error = await running.catch((error: Error) => error);
      expect(error).to.have.property('name', 'AbortError');
      expect(layers).to.deep.equal([[], [0], [0, 1]][abortAt + 1]);
      expect(tokens).to.equal(abortAt === 1 ? 2 : 0);
      model.dispose();
    });
  }

  it('runs the MLP in chunks of rows alike', async () => {
    const ids = tinyIds(75);
    const whole = await tinyModel();
    const expected = await prefillLogits(whole, ids);
    whole.dispose();
    const width = tinyConfig.intermediate_size;
    const chunked = await loadModel(tinyFiles(), {maxMlpValues: 20 * 2 * width + 1});
    const {kernels} = await tf.profile(async () => {
      const logits = await prefillLogits(chunked, ids);
      expect(largestDifference(logits, expected)).to.be.lessThan(1e-4);
      return [];
    });
    const gate = backend === 'webgpu' ? GatedActivation : 'Sigmoid';
    const gates = kernels.filter(({name}) => name === gate).map(({outputShapes}) => outputShapes[0]);
    // The first of the two layers; the last one runs on its last row.
    expect(gates).to.deep.equal([19, 19, 19, 18, 1].map((rows) => [rows, width]));
    chunked.dispose();
  });

  it('streams what it writes, and samples by the seed', async () => {
    const model = await tinyModel();
    const streamed: number[][] = [];
    const sampling = {temperature: 1.5, topP: 0.95, seed: 3};
    const request = {maxTokens: 6, sampling};
    const first = await generate(model, tinyIds(7), {
      ...request,
      onToken: (tokens) => void streamed.push([...tokens]),
    });
    expect(streamed).to.deep.equal(first.tokens.map((_, i) => first.tokens.slice(0, i + 1)));
    expect((await generate(model, tinyIds(7), request)).tokens).to.deep.equal(first.tokens);
    const other = await generate(model, tinyIds(7), {...request, sampling: {...sampling, seed: 4}});
    expect(other.tokens).not.to.deep.equal(first.tokens);
    expect(await rejection(generate(model, tinyIds(7), {maxTokens: 0}))).to.match(
      /maxTokens is 0; accepted: a positive/,
    );
    model.dispose();
  });

  it('continues with the most likely token until the limit, the stop or an end token', async () => {
    const model = await tinyModel();
    const prompt = tinyIds(7);
    const expected: number[] = [];
    for (let i = 0; i < 4; ++i) {
      const logits = await prefillLogits(model, [...prompt, ...expected]);
      expected.push(logits.indexOf(Math.max(...logits)));
    }
    const {tokens, firstTokenMs, restMs} = await generate(model, prompt, {maxTokens: 4});
    expect(tokens).to.deep.equal(expected);
    expect(firstTokenMs).to.be.greaterThan(0);
    expect(restMs).to.be.greaterThan(0);
    const stopped = await generate(model, prompt, {maxTokens: 4, stop: (soFar) => soFar.length === 2});
    expect(stopped.tokens).to.deep.equal(expected.slice(0, 2));
    model.dispose();

    const ending = await tinyModel({eos_token_id: [expected[0]]});
    expect((await generate(ending, prompt, {maxTokens: 4})).tokens).to.deep.equal([]);
    ending.dispose();
  });
});
