import {reasonOf} from './interruptions';
import type {RepoAddress} from './model_address';

/** What a hub says of a file. */
export interface RepoFile {
  /** In the repository. */
  path: string;
  /** In bytes. */
  size: number;
  /** In hexadecimal digits; of files in large-file storage, as weights are. */
  sha256?: string;
}

export interface RepoListing {
  /** What the revision means now: all files are fetched from this commit, whatever is pushed meanwhile. */
  commit: string;
  files: RepoFile[];
}

/**
 * The files of a repository, in one request: `GET HUB/api/models/OWNER/NAME/revision/REVISION?blobs=true`.
 *
 * @throws Error that names the address, and says what came and what helps.
 */
export async function listRepo({hub, owner, name, revision}: RepoAddress, signal?: AbortSignal): Promise<RepoListing> {
  const url = `${hub}/api/models/${owner}/${name}/revision/${encodeURIComponent(revision)}?blobs=true`;
  let response: Response;
  try {
    response = await fetch(url, {signal});
  } catch (error) {
    signal?.throwIfAborted();
    throw new Error(`${url}: the hub could not be reached: ${reasonOf(error)}`, {cause: error});
  }
  if (!response.ok) throw new Error(refusal(url, response.status, `${owner}/${name}, revision ${revision},`));
  let answer: unknown;
  try {
    answer = await response.json();
  } catch (error) {
    signal?.throwIfAborted();
    throw new Error(`${url}: got no JSON; accepted: the list of a repository’s files`, {cause: error});
  }
  return parseListing(answer, url);
}

/** Why a hub or a host sends nothing, and what helps. */
export function refusal(url: string, status: number, what: string): string {
  if (status === 401 || status === 403) {
    return (
      `${url}: the server answered ${status}: ${what} is private or gated, or does not exist; accepted: models that anybody ` +
      'may download. Download it by hand, after agreeing to its terms, and open the file'
    );
  }
  if (status === 404) return `${url}: the server answered 404: ${what} is not there; is it spelt so?`;
  return `${url}: the server answered ${status}; accepted: 200 or 206`;
}

function parseListing(answer: unknown, url: string): RepoListing {
  const {sha, siblings} = (answer ?? {}) as {sha?: unknown; siblings?: unknown};
  if (typeof sha !== 'string' || !/^[\da-f]+$/.test(sha)) {
    throw new Error(`${url}: sha is ${JSON.stringify(sha)}; accepted: a commit`);
  }
  if (!Array.isArray(siblings)) throw new Error(`${url}: siblings is ${JSON.stringify(siblings)}; accepted: a list`);
  return {commit: sha, files: siblings.map((file, i) => parseFile(file, `${url}: siblings[${i}]`))};
}

function parseFile(file: unknown, what: string): RepoFile {
  const {rfilename: path, size, lfs} = (file ?? {}) as {rfilename?: unknown; size?: unknown; lfs?: {sha256?: unknown}};
  if (typeof path !== 'string') throw new Error(`${what}.rfilename is ${JSON.stringify(path)}; accepted: a path`);
  if (!Number.isSafeInteger(size)) throw new Error(`${what}.size is ${JSON.stringify(size)}; accepted: bytes`);
  const sha256 = lfs?.sha256;
  return {
    path,
    size: size as number,
    ...(typeof sha256 === 'string' && /^[\da-f]{64}$/.test(sha256) && {sha256}),
  };
}
