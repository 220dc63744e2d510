import {expect} from 'chai';
import {chatTemplate, type ChatMessage} from '../../runner/chat_template';
import {fixture} from '../setup/environment';

interface RealTemplate {
  template: string;
  bos: string;
  eos: string;
  cases: {on: string; off: string}[];
  tools?: {messages: ChatMessage[]; tools: object[]; on: string; off: string};
}

interface RealTemplates {
  conversations: {name: string; messages: ChatMessage[]}[];
  models: Record<string, RealTemplate>;
}

interface OwnTemplates {
  conversations: Record<string, ChatMessage[]>;
  tools: object[];
  templates: {
    name: string;
    template: string;
    cases: {conversation: string; tools?: true; text?: string; error?: string}[];
  }[];
}

const json = async <T>(path: string): Promise<T> => JSON.parse(new TextDecoder().decode(await fixture(path)));
const tokens = {bosToken: '<s>', eosToken: '</s>'};
const user = [{role: 'user', content: 'Hi'}];
const render = (source: string, messages: ChatMessage[] = user) =>
  chatTemplate(source, tokens).render(messages, {addGenerationPrompt: true});

describe('chatTemplate', () => {
  for (const model of ['smollm2', 'qwen2.5-coder-0.5b']) {
    it(`renders the template of ${model} as jinja2 does`, async () => {
      const {conversations, models} = await json<RealTemplates>('test/runner/chat.json');
      const {template, bos, eos, cases, tools} = models[model];
      const chat = chatTemplate(template, {bosToken: bos, eosToken: eos});
      conversations.forEach(({name, messages}, i) => {
        expect(chat.render(messages, {addGenerationPrompt: true}), name).to.equal(cases[i].on);
        expect(chat.render(messages, {addGenerationPrompt: false}), name).to.equal(cases[i].off);
      });
      if (tools) {
        const options = {tools: tools.tools};
        expect(chat.render(tools.messages, {...options, addGenerationPrompt: true})).to.equal(tools.on);
        expect(chat.render(tools.messages, {...options, addGenerationPrompt: false})).to.equal(tools.off);
      }
    });
  }

  it('renders blocks, filters, macros and loops as jinja2 does', async () => {
    const {conversations, tools, templates} = await json<OwnTemplates>('test/runner/chat_templates.json');
    for (const {name, template, cases} of templates) {
      const chat = chatTemplate(template, tokens);
      for (const {conversation, tools: withTools, text, error} of cases) {
        const run = () =>
          chat.render(conversations[conversation], {addGenerationPrompt: true, ...(withTools && {tools})});
        if (error === undefined) expect(run(), name).to.equal(text);
        else expect(run, name).to.throw(error);
      }
    }
  });

  it("writes today's date in English", () => {
    const before = new Date().toDateString();
    const text = render("{{ strftime_now('%a %b %d %Y|%A|%B|%m|%y|%e|%-d|%H:%M:%S|%I %p|%%') }}");
    const parts = text.split('|');
    // Midnight may pass between the two.
    expect([before, new Date().toDateString()]).to.include(parts[0]);
    const now = new Date(parts[0]);
    const two = (value: number) => String(value).padStart(2, '0');
    const [, month, day, year] = parts[0].split(' ');
    expect(parts[1].slice(0, 3)).to.equal(parts[0].slice(0, 3));
    expect(parts[1]).to.match(/^[A-Z][a-z]+day$/);
    expect(parts[2].slice(0, 3)).to.equal(month);
    expect(parts.slice(3, 7)).to.deep.equal([
      two(now.getMonth() + 1),
      year.slice(2),
      String(Number(day)).padStart(2),
      String(Number(day)),
    ]);
    expect(parts[7]).to.match(/^[0-2]\d:[0-5]\d:[0-5]\d$/);
    expect(parts[8]).to.match(/^(0[1-9]|1[0-2]) [AP]M$/);
    expect(parts[9]).to.equal('%');
  });

  it('refuses a directive of strftime_now that it does not know', () => {
    expect(() => render("{{ strftime_now('%Y %U') }}")).to.throw('strftime_now has %U; accepted: %Y %y ');
  });

  it('names the template, the roles and what the template says when it refuses messages', () => {
    const source = "{{ raise_exception('No system prompt') }}";
    const system = [{role: 'system', content: 'Be brief.'}, ...user];
    expect(() => render(source, system)).to.throw(
      `chat template ${JSON.stringify(source)} cannot render system, user: No system prompt`,
    );
    expect(() => chatTemplate(source, tokens).render([], {addGenerationPrompt: true, tools: [{}]})).to.throw(
      'cannot render no messages and tools: No system prompt',
    );
  });

  it('names a template that cannot be parsed, by its beginning', () => {
    const source = `{% for message in messages %}${'x'.repeat(100)}`;
    expect(() => chatTemplate(source, tokens)).to.throw(
      /^chat template "\{% for message in messages %\}x{31}…" cannot be parsed: /,
    );
  });

  it('ends templates that loop or grow for ever', () => {
    const loops = (count: number) => (body: string) =>
      Array.from({length: count}).reduce<string>((inner) => `{% for i in list %}${inner}{% endfor %}`, body);
    const list = `{% set list = [${Array(50).fill(1)}] %}`;
    const grown =
      '{% set ns = namespace(text="abcdefgh") %}{% for i in range(40) %}{% set ns.text = ns.text + ns.text %}';
    const refused: [string, RegExp][] = [
      [`${list}${loops(6)('x')}`, /cannot render user: it takes more than 200000 steps$/],
      [`${grown}{% endfor %}`, /cannot render user: it makes texts of more than \d+ characters$/],
      ['{% for i in range(1000000000) %}{% endfor %}', /range has 1000000000 elements; accepted: up to 100000$/],
      ['{% for i in range(0, 1, 0) %}{% endfor %}', /range has Infinity elements/],
      ['{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}', /cannot render user: /],
      [`{{ ${'('.repeat(100_000)}`, /cannot be parsed: /],
      ['x'.repeat(2_000_000), /^chat template has 2000000 characters; accepted: up to 1000000$/],
    ];
    for (const [source, message] of refused) {
      const start = performance.now();
      expect(() => render(source), source.slice(0, 80))
        .to.throw(Error, message)
        .with.property('constructor', Error);
      expect(performance.now() - start).to.be.below(10_000);
    }
  });

  it('writes long messages, and many', () => {
    const source = "{% for message in messages %}{{ '[' + message.role + '] ' + message.content + '\\n' }}{% endfor %}";
    const long = [{role: 'user', content: 'word '.repeat(2_000_000)}];
    expect(render(source, long)).to.have.length(10_000_008);
    const many = Array.from({length: 3000}, () => ({role: 'user', content: 'word'}));
    expect(render(source, many)).to.have.length(3000 * 12);
  });

  it('leaves a token that there is not undefined', () => {
    const source = '{{ bos_token }}{{ 1 if bos_token is defined else 0 }}';
    expect(chatTemplate(source, {}).render(user, {addGenerationPrompt: false})).to.equal('0');
    expect(render(source)).to.equal('<s>1');
  });
});
