import {readFileSync} from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {ChatRequest, ChatTurn} from '../../../demo/engine/chat_protocol';
import {LocalEngine} from '../../../demo/engine/engine';
import {GREEDY} from '../../../runner/llama/sample';
import {jsonFile, tinyConfig, tinyTensors, writeSafetensors} from '../../runner/llama/tiny/random_checkpoint';

/** Turns; `SOAK=200` is the long run. */
const turns = Number(process.env.SOAK || 24);
/** Turns of a chat before another one is begun. */
const turnsOfChat = 12;

const tokenizer = readFileSync(new URL('../../../demo/public/model/tokenizer.json', import.meta.url), 'utf8');
const template =
  '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';

describe('a chat of many turns', () => {
  it(`${turns}: nothing grows`, async function () {
    this.timeout(0);
    const config = {...tinyConfig, vocab_size: 8192, num_hidden_layers: 1};
    const engine = new LocalEngine();
    await engine.start('cpu');
    const files = [
      jsonFile('config.json', config),
      new File([tokenizer], 'tokenizer.json'),
      new File([writeSafetensors(tinyTensors(config))], 'model.safetensors'),
      jsonFile('tokenizer_config.json', {chat_template: template}),
    ];
    await engine.loadModel({files}, () => {});
    const {gc} = globalThis as {gc?: () => void};
    /** Of a chat that was as long each time. */
    const held = () => {
      gc?.();
      return {tensors: tf.memory().numTensors, bytes: tf.memory().numBytes, heap: process.memoryUsage().heapUsed};
    };
    let said: ChatTurn[] = [];
    let first: ReturnType<typeof held> | undefined;
    for (let turn = 1; turn <= turns; ++turn) {
      const content = `Question ${turn % turnsOfChat}: who is it?`;
      const request: ChatRequest = {
        ...{system: 'Be brief.', document: 'It was late.', turns: [...said, {role: 'user', content}]},
        ...{attention: turn % 2 ? 'exact' : 'pbs', maxTokens: 4, sampling: GREEDY, warmUp: false},
      };
      const {text} = await engine.chat(request, () => {});
      said = [...request.turns, {role: 'assistant', content: text}];
      if (turn % turnsOfChat === 0) {
        const now = held();
        first ??= now;
        expect({tensors: now.tensors, bytes: now.bytes}).to.deep.equal({tensors: first.tensors, bytes: first.bytes});
        expect(now.heap - first.heap, 'bytes of heap').to.be.below(10 * 2 ** 20);
        said = [];
      }
    }
    await engine.forgetChat();
  });
});
