import {readFile} from 'node:fs/promises';
import {chatTemplate} from '../../../runner/chat_template';
import {Broken, bytesOf, textOf, type FuzzTarget} from '../fuzz_target';
import {mutateText} from '../mutations';
import {fileOfRepository} from '../repository';

const PIECES = [
  ...['{% for m in messages %}', '{% endfor %}', '{% if m %}', '{% else %}', '{% endif %}', '{{ m.content }}', '{{'],
  ...['{% for i in range(1000) %}', '{% set x = x + x %}', '{{ "a" * 9 }}', '{% macro f(x) %}{{ f(x) }}{% endmacro %}'],
  ...[
    '{{ f(f) }}',
    '| tojson',
    '| replace("", "a")',
    '| indent(100)',
    '| join',
    '[::-1]',
    '.split("")',
    ' ~ ',
    '(',
    ')',
  ],
  ...['{%- set ns = namespace(a="b") %}', '{% set ns.a = ns.a + ns.a %}', '{{ strftime_now("%Y") }}', 'range(0, 9, 0)'],
  ...['{% for k, v in m.items() %}', '{% break %}', '{% continue %}', '{% generation %}', '{# x #}', 'messages[0]'],
];

const MESSAGES = [
  {role: 'system', content: 'Be brief.'},
  {role: 'user', content: 'Hello'},
  {role: 'assistant', content: 'Hi'},
  {role: 'user', content: 'And now?'},
];

/** Templates of real models, with pieces put in, left out and exchanged. */
export async function chatTemplates(): Promise<FuzzTarget> {
  const url = fileOfRepository('test/runner/chat_templates.json');
  const templates = [...textsOf(JSON.parse(await readFile(url, 'utf8')))].filter((text) => text.includes('{%'));
  const pieces = [...PIECES, ...templates];
  return {
    ending: 'txt',
    make: (random) => bytesOf(mutateText(random.chance(0.8) ? random.pick(templates) : '', pieces, random)),
    run(input) {
      const template = chatTemplate(textOf(input), {bosToken: '<s>', eosToken: '</s>'});
      const text = template.render(MESSAGES, {addGenerationPrompt: true, tools: [{name: 'f'}]});
      if (typeof text !== 'string') throw new Broken(`rendered ${typeof text}`);
    },
  };
}

function* textsOf(value: unknown): Generator<string> {
  if (typeof value === 'string') yield value;
  else if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) yield* textsOf(part);
}
