import type {Tokenizer} from '@huggingface/tokenizers';
import {expect} from 'chai';
import {createTokenizer} from '../../runner/tokenizer';
import {factSentence} from '../../demo/needle';
import {isAnswer} from '../../experiments/measure/reading';
import {type Book, passage, readBook} from '../../experiments/prompts/book';
import {promptSet} from '../../experiments/prompts/prompt_set';
import {buildPrompt, questionsOf, TASKS} from '../../experiments/prompts/tasks';
import {fixture} from '../setup/environment';

describe('prompts of experiments', () => {
  let tokenizer: Tokenizer;
  let book: Book;
  let text: string;
  const request = {length: 2048, depth: 0.3, seed: 7};
  before(async () => {
    const read = async (path: string) => new TextDecoder().decode(await fixture(path));
    tokenizer = createTokenizer(JSON.parse(await read('demo/public/model/tokenizer.json')));
    text = (await read('demo/public/books/dubliners.txt')).slice(0, 60_000);
    book = readBook(tokenizer, 'dubliners', text);
  });

  it('a book read by sentences has the tokens of the whole', () => {
    expect(book.ids).to.deep.equal(tokenizer.encode(text, {add_special_tokens: false}).ids);
    for (const at of book.boundaries.slice(0, 50)) {
      expect(tokenizer.decode(book.ids.slice(at - 6, at))).to.match(/[.!?]["')]*$/);
      expect(tokenizer.decode(book.ids.slice(at, at + 6))).to.match(/^ ["'(]?[A-Z]/);
    }
    for (const at of book.paragraphs.slice(0, 50)) {
      expect(tokenizer.decode(book.ids.slice(at, at + 6))).to.match(/^["']?[A-Z]/);
    }
    expect(() => passage(book, 0, 1e6)).to.throw('too few for a passage of 1000000');
  });

  for (const task of TASKS) {
    it(`${task}: exact length, each fact once, each answer where its question ends`, () => {
      const prompt = buildPrompt(tokenizer, book, {task, ...request});
      expect(prompt.ids).to.have.lengthOf(request.length);
      expect(prompt).to.deep.equal(buildPrompt(tokenizer, book, {task, ...request}));
      const written = tokenizer.decode(prompt.ids);
      expect(prompt.questions).to.have.lengthOf(questionsOf(task));
      prompt.questions.forEach(({fact, answer, row}, i) => {
        expect(written.split(factSentence(fact))).to.have.lengthOf(2);
        expect(tokenizer.decode(prompt.ids.slice(row - 12, row + 1))).to.match(
          new RegExp(`${fact.adjective} ${fact.noun}\\?\nAnswer:$`),
        );
        expect(tokenizer.decode(answer)).to.equal(` ${fact.number}`);
        const last = i === prompt.questions.length - 1 && !task.startsWith('text-');
        expect(prompt.ids.slice(row + 1, row + 1 + answer.length)).to.deep.equal(last ? [] : answer);
      });
    });
  }

  it('text-N: as many tokens follow the answer', () => {
    for (const follows of [50, 200, 1000]) {
      const {ids, questions} = buildPrompt(tokenizer, book, {task: `text-${follows}` as 'text-50', ...request});
      const [{row, answer}] = questions;
      expect(ids.length - (row + 1 + answer.length)).to.equal(follows);
    }
  });

  it('border: a block ends inside the number', () => {
    for (const seed of [1, 2, 3, 4]) {
      const {ids, questions} = buildPrompt(tokenizer, book, {task: 'border', length: 2048, depth: 0.6, seed});
      const [{answer}] = questions;
      const starts = ids.flatMap((_, i) => (answer.every((id, j) => ids[i + j] === id) ? [i] : []));
      expect(starts).to.have.lengthOf(1);
      expect((starts[0] + 1) % 128).to.equal(0);
    }
  });

  it('a set spreads depths and books, and asks at least so many questions', () => {
    const books = [book, {...book, name: 'second'}];
    const set = promptSet(tokenizer, books, 'end', 1024, 5);
    expect(set.map(({depth}) => Number(depth.toFixed(3)))).to.deep.equal([0.05, 0.275, 0.5, 0.725, 0.95]);
    expect(set.map((prompt) => prompt.book)).to.deep.equal(['dubliners', 'second', 'dubliners', 'second', 'dubliners']);
    expect(promptSet(tokenizer, books, 'several', 1024, 10)).to.have.lengthOf(3);
  });

  it('says what does not fit', () => {
    const make = () => buildPrompt(tokenizer, book, {task: 'text-1000', length: 1024, depth: 0, seed: 1});
    expect(make).to.throw(/length is 1024; the task text-1000 takes \d+, and 128 of text/);
  });

  it('an answer is the number and no other digit', () => {
    expect(isAnswer(' 48213\n', '48213')).to.equal(true);
    expect(isAnswer(' 48213', '48213')).to.equal(true);
    expect(isAnswer(' 482137', '48213')).to.equal(false);
    expect(isAnswer(' 4821', '48213')).to.equal(false);
    expect(isAnswer('', '48213')).to.equal(false);
    expect(isAnswer(' the 48213', '48213')).to.equal(false);
  });
});
