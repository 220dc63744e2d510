import {expect} from 'chai';
import {expressionDanger} from '../../runner/expression_cost';

describe('expressionDanger', () => {
  const accepted = {
    'GPT-2': String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
    'Llama 3': String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    'GPT-4o': String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    BLOOM: ' ?[^(\\s|[.,!?…。，、।۔،])]+',
    'digits by threes from the end': String.raw`\d{1,3}(?=(?:\d{3})*\b)`,
    DeepSeek:
      '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*',
    'a class that begins with a bracket': '[]a]+[^]b]+',
    'a word in braces': 'a{x}',
  };
  for (const [name, source] of Object.entries(accepted)) {
    it(`accepts that of ${name}`, () => expect(expressionDanger(source)).to.equal(undefined));
  }

  const severalWays = /^repeats a group that matches in several ways; accepted: /;
  for (const source of [
    '(a+)+$',
    '(?:a*)*b',
    '(a|a)*$',
    '(?:a|ab)+c',
    '((a+))+',
    '(?:(?:a+)b?)+$',
    '(a?){50}a',
    '([a-z]+ ?)*!',
    '(?<word>a+){2,}',
    String.raw`(\p{L}+)*\.`,
    '([]a]+)+',
    String.raw`(\)a+)+`,
    '(?=(a+)+$)a',
  ]) {
    it(`refuses ${source}`, () => expect(expressionDanger(source)).to.match(severalWays));
  }

  it('refuses many repeats in a row, and what is longer than any', () => {
    expect(expressionDanger('a*a*a*a*$')).to.match(/^repeats more than 3 times in a row/);
    expect(expressionDanger('(?:a*a*)(?:a*a*)b')).to.match(/^repeats more than 3 times in a row/);
    expect(expressionDanger('a'.repeat(20_000))).to.equal('has 20000 characters; accepted: up to 10000');
  });
});
