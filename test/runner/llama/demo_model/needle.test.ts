import type {Tokenizer} from '@huggingface/tokenizers';
import {expect} from 'chai';
import {takePassage} from '../../../../demo/passage';
import {createTokenizer} from '../../../../runner/tokenizer';
import {buildNeedle} from '../../../../demo/needle';
import {fixture} from '../../../setup/environment';

describe('buildNeedle', () => {
  let tokenizer: Tokenizer;
  let book: string;
  const encode = (text: string) => tokenizer.encode(text, {add_special_tokens: false}).ids;
  before(async () => {
    const text = async (path: string) => new TextDecoder().decode(await fixture(path));
    tokenizer = createTokenizer(JSON.parse(await text('demo/public/model/tokenizer.json')));
    book = await text('demo/public/books/dubliners.txt');
  });

  for (const length of [128, 512, 1_000, 16_384]) {
    it(`makes exactly ${length} tokens, which are those of its text`, () => {
      for (const [depth, seed] of [
        [0, 1],
        [0.5, 2],
        [1, 3],
      ]) {
        const needle = buildNeedle(tokenizer, book, {length, depth, seed});
        expect(needle.ids).to.have.lengthOf(length);
        const text = needle.before + needle.sentence + needle.after + needle.question;
        expect(tokenizer.decode(needle.ids)).to.equal(text);
        expect(encode(text)).to.deep.equal(needle.ids);
        expect(book).to.include(needle.before + needle.after);
      }
    }).timeout(20_000);
  }

  it('puts the fact behind all text, where the last sentence ends there', () => {
    const needle = buildNeedle(tokenizer, book, {length: 512, depth: 1, seed: 1});
    expect(needle.after).to.equal('');
    expect(tokenizer.decode(needle.ids)).to.equal(needle.before + needle.sentence + needle.question);
  });

  it('finds a passage for every seed, however short', () => {
    for (let seed = 0; seed < 300; ++seed) {
      const {ids} = buildNeedle(tokenizer, book, {length: 128, depth: 0.5, seed});
      expect(ids).to.have.lengthOf(128);
    }
  }).timeout(60_000);

  it('states the fact once, between two sentences, and ends with the question', () => {
    const fact = {adjective: 'amber', noun: 'falcon', number: '48213'};
    const needle = buildNeedle(tokenizer, book, {length: 400, depth: 0.4, seed: 5, fact});
    const text = tokenizer.decode(needle.ids);
    expect(text.split(' The secret number of the amber falcon is 48213.')).to.have.lengthOf(2);
    expect(text.endsWith('\n\nQuestion: What is the secret number of the amber falcon?\nAnswer:')).to.equal(true);
    expect(needle.before).to.match(/[.!?]["')]*$/);
    expect(needle.after).to.match(/^ ["'(]?[A-Z]/);
    expect(needle).to.include({answer: '48213', position: encode(needle.before).length});
  });

  it('puts the fact where the depth says, to the next sentence', () => {
    const position = (depth: number) => buildNeedle(tokenizer, book, {length: 4096, depth, seed: 1}).position;
    for (const depth of [0, 0.25, 0.5, 0.75, 1]) {
      expect(position(depth)).to.be.closeTo(depth * 4050, 120);
    }
  });

  it('is the same for the same seed, another for another', () => {
    const make = (seed: number) => buildNeedle(tokenizer, book, {length: 256, depth: 0.5, seed});
    expect(make(8)).to.deep.equal(make(8));
    expect(make(8).before).not.to.equal(make(9).before);
    expect(make(8).answer).not.to.equal(make(9).answer);
    expect(make(8).answer).to.match(/^[1-9]\d{4}$/);
  });

  it('tells several facts, each in its place, and asks for one', () => {
    const asked = {adjective: 'amber', noun: 'falcon', number: '48213'};
    const others = [
      {fact: {adjective: 'quiet', noun: 'river', number: '11111'}, depth: 0.8},
      {fact: {adjective: 'quiet', noun: 'mirror', number: '22222'}, depth: 0.1},
      {fact: {adjective: 'golden', noun: 'river', number: '33333'}, depth: 0.1},
    ];
    const needle = buildNeedle(tokenizer, book, {length: 1000, depth: 0.5, seed: 5, fact: asked, others});
    expect(needle.ids).to.have.lengthOf(1000);
    const text = tokenizer.decode(needle.ids);
    const numbers = [...text.matchAll(/ The secret number of the \w+ \w+ is (\d{5})\./g)].map(([, number]) => number);
    expect(numbers).to.deep.equal(['22222', '33333', '48213', '11111']);
    const {position, sentenceLength, questionLength} = needle;
    expect(tokenizer.decode(needle.ids.slice(position, position + sentenceLength))).to.equal(needle.sentence);
    expect(tokenizer.decode(needle.ids.slice(-questionLength))).to.equal(needle.question);
    expect(needle.question).to.include('amber falcon');
    const without = text.replaceAll(/ The secret number of the \w+ \w+ is \d{5}\./g, '').replace(needle.question, '');
    expect(book).to.include(without);
  });

  it('takes a text of one paragraph from its beginning, to its last word', () => {
    const text = `It was ${'a long and quiet road to the sea. It went on '.repeat(30)}and ended.`;
    const length = encode(text).length;
    const passage = takePassage(tokenizer, text, 7, length);
    expect(tokenizer.decode(passage.ids)).to.equal(text);
    expect(() => takePassage(tokenizer, text, 7, length + 1)).to.throw(`it has ${length}`);
    expect(takePassage(tokenizer, 'no end of a sentence here', 1, 3).boundaries).to.deep.equal([]);
  });

  it('says what it cannot use', () => {
    const request = {length: 256, depth: 0.5, seed: 1};
    const sound = {adjective: 'amber', noun: 'falcon', number: '48213'};
    const make = (changes: object) => () => buildNeedle(tokenizer, book, {...request, ...changes});
    expect(make({length: 40})).to.throw(/length is 40 tokens.*accepted: 128 and more/);
    expect(make({length: 2.5})).to.throw(/length is 2\.5; accepted: a positive integer/);
    expect(make({length: 500_000})).to.throw(/the text is too short for a prompt with \d+ tokens/);
    expect(make({depth: 1.1})).to.throw(/depth is 1\.1; accepted: 0 .* to 1/);
    expect(make({depth: NaN})).to.throw(/depth is NaN/);
    expect(make({fact: {...sound, noun: 'two words'}})).to.throw(/the noun is "two words"; accepted: one word/);
    expect(make({fact: {...sound, adjective: ''}})).to.throw(/the adjective is ""/);
    const twice = [{fact: {...sound, number: '99999'}, depth: 0.1}];
    expect(make({fact: sound, others: twice})).to.throw(/two facts tell the secret number of the amber falcon/);
    expect(make({others: [{fact: sound, depth: 2}]})).to.throw(/depth is 2/);
    expect(make({fact: {...sound, number: '0123'}})).to.throw(/the number is "0123"; accepted: five digits/);
  });
});
