import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {Context} from '../../../runner/llama/context';
import {generate} from '../../../runner/llama/generate';
import type {LlamaModel} from '../../../runner/llama/model';
import {describeBackends} from '../../setup/environment';
import {loadModel} from './tiny/random_checkpoint';
import {checkpointFiles, expectedOf} from './tiny/transformers_checkpoint';

describeBackends('a context that stays', (backend) => {
  let model: LlamaModel;
  let ids: number[];
  let tensorsBefore: number;
  before(async () => {
    await tf.setBackend(backend);
    // Its continuation does not end early.
    ({ids} = await expectedOf('qwen3'));
    tensorsBefore = tf.memory().numTensors;
    model = await loadModel(await checkpointFiles('qwen3'));
  });
  after(() => {
    model.dispose();
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensorsBefore);
  });

  const write = (prompt: number[], context?: Context) => generate(model, prompt, {maxTokens: 6, context});

  it('reads only what is new, and writes the same', async () => {
    const context = new Context();
    const first = await write(ids.slice(0, 20), context);
    expect(first.reusedTokens).to.equal(0);
    // The last token was written, but not read.
    expect(context.length).to.equal(25);
    const longer = [...ids.slice(0, 20), ...first.tokens, ...ids.slice(20, 28)];
    const second = await write(longer, context);
    expect(second.reusedTokens).to.equal(25);
    expect(second.tokens).to.deep.equal((await write(longer)).tokens);
    context.dispose();
  });

  it('goes back to where a prompt differs', async () => {
    const context = new Context();
    await write(ids.slice(0, 24), context);
    const other = [...ids.slice(0, 15), ...ids.slice(20, 30)];
    const {tokens, reusedTokens} = await write(other, context);
    expect(reusedTokens).to.equal(15);
    expect(tokens).to.deep.equal((await write(other)).tokens);
    // The same prompt once more: its last token is read again, for its logits.
    const again = await write(other, context);
    expect(again.reusedTokens).to.equal(other.length - 1);
    expect(again.tokens).to.deep.equal(tokens);
    context.dispose();
  });

  it('keeps nothing of a prompt that begins otherwise, nor after an error', async () => {
    const context = new Context();
    await write(ids.slice(0, 10), context);
    const {reusedTokens} = await write([ids[0] === 3 ? 4 : 3, ...ids.slice(1, 10)], context);
    expect(reusedTokens).to.equal(0);
    const unknown = [ids[0] === 3 ? 4 : 3, ...ids.slice(1, 10), -1];
    const failure = await write(unknown, context).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(failure?.message).to.match(/token id is -1/);
    expect(context.length).to.equal(0);
  });

  it('keeps what was read when the writing is stopped', async () => {
    const context = new Context();
    const stop = new AbortController();
    const stopped = await generate(model, ids.slice(0, 12), {
      ...{maxTokens: 6, context, signal: stop.signal},
      onToken: () => stop.abort(),
    }).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(stopped?.name).to.equal('AbortError');
    expect(context.length).to.equal(12);
    context.dispose();
  });
});
