/** The hub that `owner/name` means where no other is given. */
export const HUGGING_FACE = 'https://huggingface.co';

/** Where a model is: one file on any web host, or a repository of a hub, with a file of it where one is named. */
export type ModelAddress = FileAddress | RepoAddress;

export interface FileAddress {
  kind: 'file';
  /** Of a `.gguf` file. */
  url: string;
}

export interface RepoAddress {
  kind: 'repo';
  /** Base of the hub, without a slash at its end. */
  hub: string;
  owner: string;
  name: string;
  /** A branch, tag or commit. */
  revision: string;
  /** Path of a `.gguf` file in the repository. Default: chosen from what is there. */
  file?: string;
}

const DEFAULT_REVISION = 'main';

const ACCEPTED =
  'owner/name, owner/name@revision, owner/name/file.gguf, the address of a hub’s page of these, or https://…/file.gguf';

/** Names of owners and repositories, as the Hugging Face hub allows them. */
const NAME = /^\w[\w.-]*$/;

/** A revision may have slashes, which are written `%2F`. */
const REVISION = /^\w[\w./-]*$/;

/** `model-00001-of-00003.gguf`: one of several files. */
const PART = /-\d{5}-of-(?!00001)\d{5}\.gguf$/;

/**
 * Reads what a person typed: `owner/name`, `owner/name@revision`, `owner/name/file.gguf`, `owner/name@revision/file.gguf`, the
 * address of a page of a hub (`…/owner/name`, `…/tree/REVISION`, `…/blob/REVISION/file.gguf`, `…/resolve/REVISION/file.gguf`), or
 * that of a `.gguf` file on any web host.
 *
 * @param hub base of the hub that names without a host mean. Pages of huggingface.co are known beside it.
 * @throws Error that says what came and what is accepted.
 */
export function parseModelAddress(text: string, hub = HUGGING_FACE): ModelAddress {
  const typed = text.trim();
  const base = hub.replace(/\/+$/, '');
  if (!/^https?:\/\//.test(base) || !URL.canParse(base)) {
    throw new Error(`hub is "${hub}"; accepted: an address as ${HUGGING_FACE}`);
  }
  try {
    return /^https?:\/\//i.test(typed) ? parseURL(typed, base) : parseName(typed, base);
  } catch (error) {
    throw new Error(`"${typed}" ${(error as Error).message}`, {cause: error});
  }
}

/** Short and the same for all spellings: the name of a repository, with its hub where that is another one, or the URL. */
export function formatModelAddress(address: ModelAddress): string {
  if (address.kind === 'file') return address.url;
  const {hub, owner, name, revision, file} = address;
  const at = revision === DEFAULT_REVISION ? '' : `@${encodeURIComponent(revision)}`;
  return `${hub === HUGGING_FACE ? '' : `${hub}/`}${owner}/${name}${at}${file === undefined ? '' : `/${file}`}`;
}

/** Whether a name is that of one of several `.gguf` files that make up a model. */
export function isPartOfGGUF(file: string): boolean {
  return PART.test(file);
}

function parseURL(typed: string, hub: string): ModelAddress {
  if (!URL.canParse(typed)) throw new Error(`is no address; accepted: ${ACCEPTED}`);
  const url = new URL(typed);
  if (url.username !== '' || url.password !== '') {
    throw new Error('has a user name or password in it; accepted: addresses that anybody may read');
  }
  url.hash = '';
  const base = [hub, HUGGING_FACE].find((known) => url.href.startsWith(`${known}/`));
  const repo = base && parsePage(url, base);
  if (repo) return repo;
  checkFile(decoded(url.pathname));
  return {kind: 'file', url: url.href};
}

/** A page or file of a hub; nothing if the path is none of its repositories'. */
function parsePage(url: URL, hub: string): RepoAddress | undefined {
  const path = new URL(`${hub}/`).pathname;
  const [owner, name, view, revision, ...rest] = url.pathname
    .slice(path.length)
    .replace(/\/+$/, '')
    .split('/')
    .map(decoded);
  if (name === undefined || !isRepo(owner, name)) return undefined;
  if (view === undefined) return {kind: 'repo', hub, owner, name, revision: DEFAULT_REVISION};
  if (!['tree', 'blob', 'resolve', 'raw'].includes(view) || !revision) return undefined;
  const repo = {kind: 'repo', hub, owner, name, revision} as const;
  if (view === 'tree') return repo;
  const file = rest.join('/');
  checkFile(file);
  return {...repo, file};
}

function parseName(typed: string, hub: string): RepoAddress {
  const [owner, named = '', ...rest] = typed.split('/');
  const [name, at = DEFAULT_REVISION, more] = named.split('@');
  const revision = decoded(at);
  const refused = `is no address of a model; accepted: ${ACCEPTED}`;
  if (!isRepo(owner, name) || !REVISION.test(revision) || more !== undefined) throw new Error(refused);
  const repo = {kind: 'repo', hub, owner, name, revision} as const;
  if (rest.length === 0) return repo;
  const file = rest.join('/');
  checkFile(file);
  return {...repo, file};
}

/** `models/x.gguf` is none: a file in a folder of a host, or a path on a disk that is not there. */
function isRepo(owner: string, name: string): boolean {
  return NAME.test(owner) && NAME.test(name) && !name.endsWith('.gguf');
}

function checkFile(path: string): void {
  if (!path.endsWith('.gguf') || path.split('/').includes('..')) {
    throw new Error(`is no .gguf file and no repository; accepted: ${ACCEPTED}`);
  }
  if (isPartOfGGUF(path)) throw new Error('is one of several files of a model; accepted: a model in one .gguf file');
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
