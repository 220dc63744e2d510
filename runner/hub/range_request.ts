import {Interruption, reasonOf, Unreachable, WrongFile} from './interruptions';
import {refusal} from './repo_listing';
import type {ManifestFile} from './store';

/** What a host sends of a file, from `start` to its end. */
export interface Part {
  start: number;
  /** Bytes of the whole file, where the host says it. */
  total?: number;
  version?: string;
  body: ReadableStream<Uint8Array<ArrayBuffer>>;
}

/**
 * Asks for a file from a byte on, by `Range`. The part begins at 0 instead where the host knows no ranges, or where it has another
 * version of the file than that of the bytes before.
 *
 * `If-Range` would leave that to the host, but a page may not send it to another origin unasked, so the versions are compared here. Where
 * the host hides them from pages, the length is what tells, and the hash at the end.
 *
 * @throws Interruption if another attempt may work; WrongFile if the length is not the one that the hub says; Error otherwise.
 */
export async function openPart(file: ManifestFile, from: number, signal: AbortSignal): Promise<Part> {
  // Nothing would tell whether it is the same file.
  const start = file.version === undefined && file.size === undefined ? 0 : from;
  const {response, asRange} = await request(file.url, start, signal);
  try {
    const part = partOf(response, file, start, asRange);
    if (part !== undefined) return part;
  } catch (error) {
    await response.body?.cancel();
    throw error;
  }
  await response.body?.cancel();
  return openPart({...file, version: undefined, size: file.listed ? file.size : undefined}, 0, signal);
}

interface Answer {
  response: Response;
  /** Whether a range was asked for, whatever was sent. */
  asRange: boolean;
}

/**
 * From 0 on too as a range, as the answer to one is not compressed, so that its length is that of the file. Not through the browser's
 * cache, where it would be kept a second time.
 */
async function request(url: string, start: number, signal: AbortSignal): Promise<Answer> {
  const options = {cache: 'no-store', signal} as const;
  try {
    return {response: await fetch(url, {...options, headers: {range: `bytes=${start}-`}}), asRange: true};
  } catch (error) {
    const response = await plainRequest(url, start, options);
    if (response) return {response, asRange: false};
    const help = 'is the address right, and may pages of other sites read it (CORS)?';
    throw new Unreachable(`the host could not be reached: ${reasonOf(error)}; ${help}`, {cause: error});
  }
}

/**
 * A page may ask another origin for a simple range unasked (Fetch standard, "CORS-safelisted request-header"). A browser that does not know that
 * asks first, which hosts refuse that answer to a plain request, as the Hugging Face hub's do (huggingface/datasets#7931).
 */
async function plainRequest(url: string, start: number, options: RequestInit): Promise<Response | undefined> {
  if (start > 0 || options.signal!.aborted) return undefined;
  return fetch(url, options).catch(() => undefined);
}

/** Nothing if these bytes do not go on with those before. */
function partOf(response: Response, file: ManifestFile, from: number, asRange: boolean): Part | undefined {
  const {status, headers, body} = response;
  if (status === 416 && from > 0) return undefined;
  if (status === 408 || status === 429 || status >= 500) throw new Interruption(`the server answered ${status}`);
  if ((status !== 200 && status !== 206) || body === null) {
    throw new Error(refusal(file.url, status, 'the file'));
  }
  if (headers.get('content-type')?.startsWith('text/html')) {
    throw new Error(`${file.url}: the server sends a web page; accepted: a file`);
  }
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get('content-range') ?? '');
  const start = status === 200 ? 0 : range ? Number(range[1]) : from;
  if (start !== 0 && start !== from) {
    throw new Error(`${file.url}: the server sends bytes from ${start} on; accepted: from ${from} on`);
  }
  const total = totalLength(headers, start, range?.[2]);
  const version = headers.get('etag') ?? headers.get('last-modified') ?? undefined;
  // The answer to a plain request may be compressed without saying so to a page.
  if (asRange && file.listed && total !== undefined && total !== file.size) {
    throw new WrongFile(`the server has ${total} bytes; accepted: ${file.size}, which the hub says`);
  }
  const isOther = differ(file.version, version) || differ(file.size, total);
  if (start > 0 && isOther) return undefined;
  return {start, total, version, body};
}

function totalLength(headers: Headers, start: number, ofRange?: string): number | undefined {
  if (ofRange !== undefined && ofRange !== '*') return Number(ofRange);
  // A compressed answer says how long it is on the wire.
  const length = headers.has('content-encoding') ? null : headers.get('content-length');
  return length === null ? undefined : start + Number(length);
}

function differ<T>(before: T | undefined, now: T | undefined): boolean {
  return before !== undefined && now !== undefined && before !== now;
}
