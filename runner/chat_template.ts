import {Environment, Interpreter, parse, tokenize} from '@huggingface/jinja';
import {cut, listed} from './message_text';

/** What a template may read of a message; `content` is text in all but a few. */
export interface ChatMessage {
  role: string;
  content?: unknown;
  [field: string]: unknown;
}

export interface RenderOptions {
  /** Whether the text ends with what begins an answer. */
  addGenerationPrompt: boolean;
  /** Functions that the model may call, as JSON schemas. */
  tools?: readonly object[];
}

export interface ChatTemplate {
  /** @throws if the template refuses the messages, or does what this Jinja cannot. */
  render(messages: readonly ChatMessage[], options: RenderOptions): string;
}

/** Texts of the tokens that templates know by name; without one, its name is undefined there. */
export interface TemplateTokens {
  bosToken?: string;
  eosToken?: string;
}

/**
 * The text of a conversation, by a model's own template in Jinja, set up as transformers does
 * (`utils/chat_template_utils.py`): blocks take their line with them, `tojson` escapes neither HTML nor what is not ASCII,
 * and `raise_exception` and `strftime_now` are there.
 *
 * The library differs from jinja2 in what chat templates hardly do: it prints `true`, `null` and `{"a": 1}` for Python's `True`,
 * `None` and `{'a': 1}`, counts UTF-16 units in `length`, strips U+FEFF but not U+0085, and lacks some filters and operators
 * (`e`, text times a number); those throw.
 *
 * @throws if the template cannot be parsed.
 */
export function chatTemplate(source: string, {bosToken, eosToken}: TemplateTokens): ChatTemplate {
  if (source.length > LONGEST_SOURCE) {
    throw new Error(`chat template has ${source.length} characters; accepted: up to ${LONGEST_SOURCE}`);
  }
  const name = `chat template ${JSON.stringify(source.length > 60 ? `${source.slice(0, 60)}…` : source)}`;
  const program = failWith(`${name} cannot be parsed`, () =>
    parse(tokenize(source, {trim_blocks: true, lstrip_blocks: true})),
  );
  return {
    render(messages, {addGenerationPrompt, tools}) {
      const came = `${listed(messages.map(({role}) => role)) || 'no messages'}${tools ? ' and tools' : ''}`;
      return failWith(`${name} cannot render ${came}`, () => {
        // Not the library's Template, whose globals cannot be replaced.
        const environment = new Environment();
        const variables = {
          ...GLOBALS,
          messages,
          add_generation_prompt: addGenerationPrompt,
          tools: tools ?? null,
          documents: null,
          bos_token: bosToken,
          eos_token: eosToken,
        };
        Object.entries(variables).forEach(([variable, value]) => environment.set(variable, value));
        const length = JSON.stringify([messages, tools]).length;
        return (new BoundedInterpreter(environment, length).run(program) as {value: string}).value;
      });
    },
  };
}

/** The longest templates in use have some tens of thousands of characters. */
const LONGEST_SOURCE = 1_000_000;

/** Parts of a template that are evaluated: one takes some ten for a message and some more for a tool. */
const MOST_STEPS = 200_000;

/** Characters that evaluated parts may have all together, beside so many times those of the messages. */
const [MOST_CHARACTERS, MOST_COPIES] = [20_000_000, 100];

/** Elements of a `range`. */
const LONGEST_RANGE = 100_000;

/** An interpreter that ends: a template is a program, and may loop or double a text for ever. */
class BoundedInterpreter extends Interpreter {
  private steps = 0;
  private characters = 0;

  /** @param given characters of the messages. */
  constructor(
    environment: Environment,
    private readonly given: number,
  ) {
    super(environment);
  }

  override evaluate(...args: Parameters<Interpreter['evaluate']>): ReturnType<Interpreter['evaluate']> {
    if (++this.steps > MOST_STEPS) throw new Error(`it takes more than ${MOST_STEPS} steps`);
    const result = super.evaluate(...args);
    const value: unknown = result.value;
    this.characters += typeof value === 'string' ? value.length : 0;
    const most = MOST_CHARACTERS + MOST_COPIES * this.given;
    if (this.characters > most) throw new Error(`it makes texts of more than ${most} characters`);
    return result;
  }
}

const GLOBALS = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  range,
  raise_exception(message: string) {
    throw new Error(message);
  },
  strftime_now: (format: string) => strftime(new Date(), format),
};

/** Python's `range`. */
function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!(length <= LONGEST_RANGE)) throw new Error(`range has ${length} elements; accepted: up to ${LONGEST_RANGE}`);
  return Array.from({length}, (_, i) => start + i * step);
}

/**
 * Local time as Python's `strftime` writes it, in English on every machine, unlike the library's; of the directives those that
 * need no calendar arithmetic.
 *
 * @throws on any other directive, rather than leave it in the prompt.
 */
function strftime(date: Date, format: string): string {
  const english = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat('en-US', options).format(date);
  const padded = (value: number) => String(value).padStart(2, '0');
  const directives: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => padded(date.getFullYear() % 100),
    m: () => padded(date.getMonth() + 1),
    d: () => padded(date.getDate()),
    e: () => String(date.getDate()).padStart(2),
    B: () => english({month: 'long'}),
    b: () => english({month: 'short'}),
    A: () => english({weekday: 'long'}),
    a: () => english({weekday: 'short'}),
    H: () => padded(date.getHours()),
    I: () => padded(date.getHours() % 12 || 12),
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    M: () => padded(date.getMinutes()),
    S: () => padded(date.getSeconds()),
    '%': () => '%',
  };
  return format.replace(/%(-?)(.?)/g, (directive, plain: string, letter: string) => {
    if (!Object.hasOwn(directives, letter)) {
      throw new Error(
        `strftime_now has ${directive}; accepted: ${Object.keys(directives)
          .map((d) => `%${d}`)
          .join(' ')}`,
      );
    }
    const text = directives[letter]();
    // As in the C library of Linux, which Python calls.
    return plain ? text.replace(/^[0 ](?=.)/, '') : text;
  });
}

function failWith<T>(what: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new Error(`${what}: ${cut((error as Error).message)}`, {cause: error});
  }
}
