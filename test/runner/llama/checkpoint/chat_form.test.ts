import {expect} from 'chai';
import {openCheckpoint} from '../../../../runner/llama/checkpoint';
import {jsonFile, rejection, tinyFiles} from '../tiny/random_checkpoint';

const TOKENIZER_CONFIG = 'tokenizer_config.json';

const chatOf = async (config?: object, template?: string) => {
  const files = [
    ...(config ? [jsonFile(TOKENIZER_CONFIG, config)] : []),
    ...(template === undefined ? [] : [new File([template], 'chat_template.jinja')]),
  ];
  return (await openCheckpoint([...tinyFiles(), ...files])).chat;
};

describe('the form of chats of a checkpoint', () => {
  it('is the template of tokenizer_config.json, with the tokens that it may name', async () => {
    const tokens = {bos_token: '<s>', eos_token: {content: '</s>', lstrip: false}};
    const expected = {template: 'T', bosToken: '<s>', eosToken: '</s>'};
    expect(await chatOf({chat_template: 'T', ...tokens})).to.deep.equal(expected);
    const named = [
      {name: 'tool_use', template: 'U'},
      {name: 'default', template: 'T'},
    ];
    expect(await chatOf({chat_template: named, ...tokens})).to.deep.equal(expected);
  });

  it('is the template in a file of its own before any other', async () => {
    const expected = {template: 'T é\n', bosToken: undefined, eosToken: undefined};
    expect(await chatOf({chat_template: 'U', bos_token: null}, 'T é\n')).to.deep.equal(expected);
    expect(await chatOf(undefined, 'T é\n')).to.deep.equal(expected);
  });

  it('is left out where there is none', async () => {
    expect(await chatOf()).to.equal(undefined);
    expect(await chatOf({bos_token: '<s>'})).to.equal(undefined);
    expect(await chatOf({chat_template: null})).to.equal(undefined);
  });

  const refused: Array<[what: string, config: object, message: RegExp]> = [
    [
      'a template that is no text',
      {chat_template: 7},
      /^tokenizer_config\.json: chat_template is 7; accepted: a text, or/,
    ],
    [
      'named templates without a default',
      {chat_template: [{name: 'rag', template: 'T'}, null]},
      /chat_template is \[\{"name":"rag".*accepted: .* a list with one named default/,
    ],
    [
      'a token that is no text',
      {chat_template: 'T', eos_token: 2},
      /^tokenizer_config\.json: eos_token is 2; accepted: a text/,
    ],
  ];
  for (const [what, config, message] of refused) {
    it(`is refused as ${what}`, async () => {
      expect(await rejection(chatOf(config))).to.match(message);
    });
  }
});
