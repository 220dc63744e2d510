import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {Context} from '../../../runner/llama/context';
import {ContextFile, ContextWriter} from '../../../runner/llama/context_file';
import {generate, type Generated} from '../../../runner/llama/generate';
import type {LlamaModel} from '../../../runner/llama/model';
import {describeBackends} from '../../setup/environment';
import {loadModel, rejection, tinyConfig, tinyFiles, tinyIds, tinyTensors} from './tiny/random_checkpoint';

const IDENTITY = 'tiny, exact';

/** Of whole groups, so that on WebGPU matrices are packed, and the cache is. */
const config = {...tinyConfig, hidden_size: 64, intermediate_size: 96, head_dim: 16};

/** Magic, version and length of the header. */
const PREFIX = 16;

describeBackends('a context as a file', (backend) => {
  let model: LlamaModel;
  let ids: number[];
  let tensorsBefore: number;
  /** Of the prompt, and of the answer, which was decoded, a part. */
  const length = 22;
  let file: File;
  let prompt: number[];
  let expected: Generated;
  before(async () => {
    await tf.setBackend(backend);
    ids = tinyIds(28);
    tensorsBefore = tf.memory().numTensors;
    model = await loadModel(tinyFiles(config, tinyTensors(config)));
    const context = new Context();
    await answer(ids.slice(0, 20), context);
    file = await fileOf(context, length);
    prompt = [...context.beginning(length), ...ids.slice(20, 24)];
    expected = await answer(prompt, context);
    context.dispose();
  });
  after(() => {
    model.dispose();
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensorsBefore);
  });

  const answer = (prompt: number[], context?: Context) => generate(model, prompt, {maxTokens: 4, context});

  async function fileOf(context: Context, length: number): Promise<File> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const writer = new ContextWriter(context, model, IDENTITY, length);
    await writer.write(async (bytes) => void parts.push(bytes));
    const file = new File(parts, 'notes.context');
    expect(file.size).to.equal(writer.bytes);
    // The head, and a part for each layer.
    expect(parts).to.have.length(1 + model.config.layers);
    return file;
  }

  it('is written and read back, and the next tokens are the same', async () => {
    expect(expected.reusedTokens).to.equal(length);
    const context = new Context();
    await answer(ids.slice(5, 9), context);
    const found = await ContextFile.open(file, model, IDENTITY);
    expect(found.tokens).to.deep.equal(prompt.slice(0, length));
    await found.readInto(context);
    expect(context.length).to.equal(length);
    // It can be written once more, bit by bit the same.
    const again = await fileOf(context, length);
    expect(new Uint8Array(await again.arrayBuffer())).to.deep.equal(new Uint8Array(await file.arrayBuffer()));
    const {reusedTokens, tokens} = await answer(prompt, context);
    expect(reusedTokens).to.equal(length);
    expect(tokens).to.deep.equal(expected.tokens);
    context.dispose();
  });

  it('is refused where a field is another, before a tensor is made', async () => {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const headerBytes = new DataView(bytes.buffer).getUint32(12, true);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(PREFIX, PREFIX + headerBytes))) as object;
    const {layers, keyValueHeads, headDim, vocabSize} = model.config;
    const {elementType} = model.newCache();
    expect(elementType).to.equal(backend === 'webgpu' ? 'float16' : 'float32');
    const tensors = tf.memory().numTensors;

    const refusal = (changed: BlobPart[], identity = IDENTITY) =>
      rejection(ContextFile.open(new File(changed, 'notes.context'), model, identity));
    const withHeader = (json: unknown) => {
      const text = new TextEncoder().encode(typeof json === 'string' ? json : JSON.stringify(json));
      const prefix = bytes.slice(0, PREFIX);
      new DataView(prefix.buffer).setUint32(12, text.length, true);
      return [prefix, text, bytes.slice(PREFIX + headerBytes)];
    };
    const withPrefix = (at: number, value: number) => {
      const prefix = bytes.slice();
      new DataView(prefix.buffer).setUint32(at, value, true);
      return [prefix];
    };
    const refused: Array<[changed: object, message: string]> = [
      [{identity: 'other'}, `identity is "other"; accepted: "${IDENTITY}"`],
      [{layers: 9}, `layers is 9; accepted: ${layers}`],
      [{keyValueHeads: 9}, `keyValueHeads is 9; accepted: ${keyValueHeads}`],
      [{headDim: '8'}, `headDim is "8"; accepted: ${headDim}`],
      [{headDim: undefined}, `headDim is missing; accepted: ${headDim}`],
      [{elementType: 'int8'}, `elementType is "int8"; accepted: "${elementType}"`],
      [{tokens: 3}, 'tokens is 3; accepted: a list of ids'],
      [{tokens: []}, `number of tokens is 0; accepted: 1 to ${model.maxLength}`],
      [
        {tokens: Array(model.maxLength + 1).fill(1)},
        `number of tokens is ${model.maxLength + 1}; accepted: 1 to ${model.maxLength}`,
      ],
      [{tokens: [1, vocabSize]}, `tokens[1] is ${vocabSize}; accepted: integers from 0 to ${vocabSize - 1}`],
      [{tokens: [0.5]}, `tokens[0] is 0.5; accepted: integers`],
      [{tokens: [null]}, `tokens[0] is null; accepted: integers`],
      [{tokens: [1, 2, 3]}, `size is `],
    ];
    for (const [changed, message] of refused) {
      expect(await refusal(withHeader({...header, ...changed}))).to.include(`notes.context: ${message}`);
    }
    expect(await refusal(withHeader('{'))).to.include('notes.context: header: not JSON');
    expect(await refusal(withHeader('[]'))).to.include('header: got a list; accepted: a JSON object');
    expect(await refusal([bytes], 'another model')).to.include(`identity is "${IDENTITY}"; accepted: "another model"`);
    expect(await refusal(withPrefix(0, 0))).to.match(/magic is ".*"; accepted: "PBSCTX/);
    expect(await refusal(withPrefix(8, 2))).to.include('version is 2; accepted: 1');
    expect(await refusal(withPrefix(12, 2 ** 31))).to.match(/header length is 2147483648; accepted: at most \d+$/);
    for (const size of [0, PREFIX - 1, PREFIX, PREFIX + headerBytes - 1, PREFIX + headerBytes, bytes.length - 1]) {
      expect(await refusal([bytes.slice(0, size)]), `${size} bytes`).to.match(
        /(size|header length) is \d+; accepted: /,
      );
    }
    expect(await refusal([bytes, new Uint8Array(1)])).to.include(`accepted: ${bytes.length} bytes`);
    expect(tf.memory().numTensors).to.equal(tensors);
  });

  it('leaves nothing where it cannot be read to its end, or is stopped', async () => {
    const tensors = tf.memory().numTensors;
    const context = new Context();
    const {size} = file;
    let slices = 0;
    const breaking = {
      ...{name: 'notes.context', size},
      // Prefix, header, the first layer.
      slice: (start: number, end: number) => file.slice(start, ++slices > 3 ? end - 1 : end),
    };
    const broken = await ContextFile.open(breaking, model, IDENTITY);
    expect(await rejection(broken.readInto(context))).to.match(/got \d+ bytes at \d+, wanted \d+/);
    expect([context.length, tf.memory().numTensors]).to.deep.equal([0, tensors]);

    const stop = new AbortController();
    const whole = await ContextFile.open(file, model, IDENTITY);
    const told: number[] = [];
    const onLayer = (done: number) => {
      told.push(done);
      stop.abort(new Error('stopped'));
    };
    expect(await rejection(whole.readInto(context, {signal: stop.signal, onLayer}))).to.equal('stopped');
    expect([context.length, tf.memory().numTensors, told]).to.deep.equal([0, tensors, [1]]);
  });

  it('is not made of more than there is', async () => {
    const context = new Context();
    const write = (length: number) => () => new ContextWriter(context, model, IDENTITY, length);
    expect(write(1)).to.throw('1 tokens are asked for; accepted: 1 to the 0 that the context holds');
    await answer(ids.slice(0, 5), context);
    expect(write(context.length + 1)).to.throw('accepted: 1 to the 8');
    const writer = write(5)();
    context.dispose();
    expect(await rejection(writer.write(async () => {}))).to.include('5 tokens are asked for');
  });
});
