import {readFileSync} from 'node:fs';
import {expect} from 'chai';
import {chatFrame} from '../../../demo/engine/chat_frame';
import {buildPrompt, previewPrompt} from '../../../demo/engine/prompt';
import type {PromptRequest} from '../../../demo/engine/protocol';
import {createTokenizer, decode} from '../../../runner/tokenizer';

const read = (path: string) => readFileSync(new URL(`../../../demo/public/${path}`, import.meta.url), 'utf8');

describe('a fact asked in a form of a chat', () => {
  const tokenizer = createTokenizer(JSON.parse(read('model/tokenizer.json')) as object);
  const book = read('books/dubliners.txt').slice(0, 40_000);
  const template =
    '{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';
  const fact = {adjective: 'hidden', noun: 'falcon', number: '48213'};
  const request = {task: 'find', length: 400, seed: 3, facts: [{fact, depth: 0.5}], asked: 0} as PromptRequest;

  it('stands between what the form puts before and after it, and has the length that was asked for', () => {
    const frame = chatFrame(tokenizer, {template});
    expect(decode(tokenizer, frame.before)).to.equal('[user] ');
    expect(decode(tokenizer, frame.after)).to.equal('\n[assistant]');
    const {ids, answer, isChat, fact: told, question} = buildPrompt(tokenizer, book, request, frame);
    expect(ids.length).to.equal(400);
    expect(answer).to.equal('48213');
    expect(isChat).to.equal(true);
    const text = (range = {start: 0, end: 0}) => decode(tokenizer, ids.slice(range.start, range.end));
    expect(text(told)).to.equal(' The secret number of the hidden falcon is 48213.');
    expect(text(question)).to.equal('\n\nWhat is the secret number of the hidden falcon?');
    expect(decode(tokenizer, ids)).to.match(/^\[user\] [^]*falcon\?\n\[assistant\]$/);
    expect(previewPrompt(tokenizer, book, request, frame).question).to.equal(text(question));
  });

  it('is asked as the built-in model was trained where there is no form', () => {
    const {ids, isChat, question} = buildPrompt(tokenizer, book, request);
    expect(isChat).to.equal(false);
    expect(question!.end).to.equal(ids.length);
    expect(decode(tokenizer, ids)).to.match(/falcon\?\nAnswer:$/);
  });

  it('is refused by a form that leaves out what the user says, or says it twice', () => {
    expect(() => chatFrame(tokenizer, {template: 'Hello'})).to.throw(/nowhere; accepted: once/);
    const twice = '{{ messages[0].content }}{{ messages[0].content }}';
    expect(() => chatFrame(tokenizer, {template: twice})).to.throw(/more than once; accepted: once/);
  });
});
