import {readFileSync} from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {LocalEngine} from '../../../demo/engine/engine';
import type {ChatEvent, ChatRequest} from '../../../demo/engine/chat_protocol';
import type {LoadProgress} from '../../../demo/engine/protocol';
import {GREEDY} from '../../../runner/llama/sample';
import {jsonFile, tinyConfig, tinyTensors, writeSafetensors} from '../../runner/llama/tiny/random_checkpoint';

const tokenizer = readFileSync(new URL('../../../demo/public/model/tokenizer.json', import.meta.url), 'utf8');
const template =
  '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';

describe('the engine and another model', () => {
  const files = (layers: number) => {
    const config = {...tinyConfig, vocab_size: 8192, num_hidden_layers: layers};
    return [
      jsonFile('config.json', config),
      new File([tokenizer], 'tokenizer.json'),
      new File([writeSafetensors(tinyTensors(config))], 'model.safetensors'),
      jsonFile('tokenizer_config.json', {chat_template: template}),
    ];
  };
  const request: ChatRequest = {
    ...{system: '', document: '', turns: [{role: 'user', content: 'Who is it?'}]},
    ...{attention: 'exact', maxTokens: 12, sampling: GREEDY, warmUp: false},
  };
  const first = () => {
    let heard!: () => void;
    const text = new Promise<void>((resolve) => (heard = resolve));
    const onEvent = (event: ChatEvent) => event.type === 'text' && heard();
    return {text, onEvent};
  };
  let engine: LocalEngine;
  before(async () => {
    engine = new LocalEngine();
    await engine.start('cpu');
  });

  it('loads it while an answer is written, which is written to its end', async () => {
    const load = (layers: number) => engine.loadModel({files: files(layers)}, () => {});
    await load(1);
    const tensors = tf.memory().numTensors;
    const alone = await engine.chat(request, () => {});
    await engine.forgetChat();
    const {text, onEvent} = first();
    const answer = engine.chat(request, onEvent);
    await text;
    const [{text: written, end}, info] = await Promise.all([answer, load(2)]);
    expect({written, end}).to.deep.equal({written: alone.text, end: alone.end});
    expect(info.layers).to.equal(2);
    await load(1);
    expect(tf.memory().numTensors).to.equal(tensors);
  });

  it('may be told meanwhile not to load it, and goes on with the one from before', async () => {
    await engine.forgetChat();
    const tensors = tf.memory().numTensors;
    const {text, onEvent} = first();
    const answer = engine.chat(request, onEvent);
    await text;
    // All of it is there, and waits for the answer.
    const onProgress = ({step, done, total}: LoadProgress) => {
      if (step === 'upload' && done === total) engine.cancelLoad();
    };
    const loading = engine.loadModel({files: files(2)}, onProgress).catch((error: Error) => error);
    const {text: written} = await answer;
    expect(await loading).to.have.property('name', 'AbortError');
    await engine.forgetChat();
    expect(tf.memory().numTensors, 'tensors of the other model').to.equal(tensors);
    expect((await engine.chat(request, () => {})).text).to.equal(written);
  });
});
