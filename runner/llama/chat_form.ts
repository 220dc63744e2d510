import {readBytes, readJsonObject, type CheckpointFile} from './checkpoint_file';

/** How a chat is written: a Jinja template, and the texts of the tokens that it may name. */
export interface ChatForm {
  template: string;
  bosToken?: string;
  eosToken?: string;
}

const TOKENIZER_CONFIG = 'tokenizer_config.json';
const TEMPLATE = 'chat_template.jinja';

/** Where Hugging Face's form has it. */
export const CHAT_FILES = [TOKENIZER_CONFIG, TEMPLATE];

/**
 * As transformers reads it (`PreTrainedTokenizerBase`): the template in a file of its own goes before the one in
 * `tokenizer_config.json`; of several named ones there, `default` is taken.
 *
 * @param folder a checkpoint's files by their names.
 * @returns nothing where the model has no form of chats.
 * @throws Error that names the file and field, what came and what is accepted.
 */
export async function readChatForm(folder: ReadonlyMap<string, CheckpointFile>): Promise<ChatForm | undefined> {
  const [configFile, templateFile] = CHAT_FILES.map((name) => folder.get(name));
  const config = configFile ? await readJsonObject(configFile) : {};
  const template = templateFile
    ? new TextDecoder().decode(await readBytes(templateFile, 0, templateFile.size))
    : templateOf(config.chat_template);
  if (template === undefined) return undefined;
  return {template, bosToken: tokenText(config, 'bos_token'), eosToken: tokenText(config, 'eos_token')};
}

function templateOf(field: unknown): string | undefined {
  if (field === undefined || field === null) return undefined;
  if (typeof field === 'string') return field;
  if (Array.isArray(field)) {
    const named = (field as Array<{name?: unknown; template?: unknown} | null>).find(
      (form) => form?.name === 'default',
    );
    if (typeof named?.template === 'string') return named.template;
  }
  throw new Error(
    `${TOKENIZER_CONFIG}: chat_template is ${JSON.stringify(field).slice(0, 200)}; accepted: a text, or a list with one named default`,
  );
}

/** A text, or a token that was added, with its text as `content`. */
function tokenText(config: Record<string, unknown>, name: string): string | undefined {
  const token = config[name] ?? undefined;
  const text = typeof token === 'object' ? (token as {content?: unknown}).content : token;
  if (text === undefined || typeof text === 'string') return text;
  throw new Error(
    `${TOKENIZER_CONFIG}: ${name} is ${JSON.stringify(token)}; accepted: a text, an object with content, or null`,
  );
}
