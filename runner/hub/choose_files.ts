import {formatModelAddress, isPartOfGGUF, type RepoAddress} from './model_address';
import type {RepoFile} from './repo_listing';

const REQUIRED = ['config.json', 'tokenizer.json'];
const INDEX = 'model.safetensors.index.json';

/** Read where they are there: the template of chats, and the tokens that it names. */
const OPTIONAL = ['tokenizer_config.json', 'chat_template.jinja'];

/** The type that is taken where nothing is said: a quarter of the size at nearly the quality of float16. */
const PREFERRED = /[._-]q4_k_m\.gguf$/i;

/** `.gguf` files that are no language model by themselves. */
const NO_MODEL = /(^|[/._-])(mmproj|imatrix)([._-]|$)/i;

/** The models in one `.gguf` file that a repository has, to choose from. */
export function ggufModels(files: readonly RepoFile[]): RepoFile[] {
  return files.filter(({path}) => path.endsWith('.gguf') && !isPartOfGGUF(path) && !NO_MODEL.test(path));
}

/**
 * The files that make up a model: the `.gguf` file that the address names; else the repository's safetensors with their
 * `config.json` and `tokenizer.json`; else its `.gguf` file, of several the one of type Q4_K_M. The weights come last.
 *
 * @throws Error that says what is there and what is accepted; of several `.gguf` files it names all.
 */
export function chooseFiles(address: RepoAddress, files: readonly RepoFile[]): RepoFile[] {
  const what = formatModelAddress(address);
  if (address.file !== undefined) {
    const named = files.find(({path}) => path === address.file);
    if (named) return [named];
    throw new Error(`${what}: is not there; accepted: ${listed(ggufModels(files)) || 'a repository with .gguf files'}`);
  }
  const safetensors = safetensorsModel(files);
  if (safetensors) return safetensors;
  const models = ggufModels(files);
  const preferred = models.filter(({path}) => PREFERRED.test(path));
  const [only, ...others] = preferred.length > 0 ? preferred : models;
  if (only === undefined) {
    const parts = files.some(({path}) => isPartOfGGUF(path)) ? '; its .gguf files are parts of a model' : '';
    throw new Error(
      `${what}: has ${listed(files) || 'no files'}${parts}; accepted: ${REQUIRED.join(', ')} and model.safetensors, or a .gguf file`,
    );
  }
  if (others.length > 0) {
    throw new Error(`${what}: has several models; accepted: ${what}/FILE, where FILE is ${listed([only, ...others])}`);
  }
  return [only];
}

/** Those of the repository's own folder, as transformers names them; not copies in other formats beside them. */
function safetensorsModel(files: readonly RepoFile[]): RepoFile[] | undefined {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const present = (paths: string[]) => paths.flatMap((path) => byPath.get(path) ?? []);
  const weights = byPath.has(INDEX)
    ? files.filter(({path}) => /^model-\d+-of-\d+\.safetensors$/.test(path))
    : present(['model.safetensors']);
  const required = present(REQUIRED);
  if (required.length < REQUIRED.length || weights.length === 0) return undefined;
  return [...required, ...present([...OPTIONAL, INDEX]), ...weights];
}

/** Names, as many as one reads. */
function listed(files: readonly RepoFile[]): string {
  const most = 20;
  const names = files.slice(0, most).map(({path}) => path);
  return names.join(', ') + (files.length > most ? ` and ${files.length - most} more` : '');
}
