import {createHash} from 'node:crypto';
import {createServer, type IncomingMessage, type Server, type ServerResponse} from 'node:http';
import type {AddressInfo} from 'node:net';

/** How a file is served; what is left out is as the Hugging Face hub does it. */
export interface HubFile {
  bytes: Uint8Array;
  /** In large-file storage: listed with its hash, and sent by another host after a redirect. Default: true. */
  large?: boolean;
  /** What the list says instead of the truth. */
  listedSize?: number;
  listedHash?: string;
  /** `false`: the host knows no ranges. */
  ranges?: boolean;
  /** Requests for ranges come to nothing, as where a browser has to ask first and the host refuses that. */
  refusesRanges?: boolean;
  /** `null`: the host says none. Default: of the content. */
  etag?: string | null;
  contentType?: string;
  /** Bytes of the file after which connections are cut, one for each connection. */
  cuts?: number[];
  /** Byte after which the connection says nothing more, as often as `stalls`. */
  stallAt?: number;
  stalls?: number;
  /** Answers instead of the file, one for each request; the last one stays if it is `forever`. */
  statuses?: number[];
  forever?: boolean;
  /** Pause between pieces of `pieceBytes`, in milliseconds. */
  pauseMs?: number;
  pieceBytes?: number;
  /** `false`: without `Content-Length`, and pages may read no headers but the safe ones. */
  open?: boolean;
}

export interface HubRequest {
  host: 'hub' | 'cdn';
  path: string;
  range?: string;
}

export const COMMIT = '0123456789abcdef0123456789abcdef01234567';

const EXPOSED = 'ETag, Content-Range, Accept-Ranges';

/**
 * Serves repositories as a hub does: lists at `/api/models/OWNER/NAME/revision/REVISION`, files at
 * `/OWNER/NAME/resolve/REVISION/FILE`, large ones by a redirect to another origin; and `/files/FILE`, which any web host serves. Pages of any
 * origin may read all. What goes wrong is said by each file.
 */
export class HubServer {
  /** By `OWNER/NAME/FILE`, or `files/FILE`. */
  readonly files = new Map<string, HubFile>();
  readonly requests: HubRequest[] = [];
  /** What lists answer instead. */
  listStatus = 200;
  commit = COMMIT;

  private constructor(
    private readonly hub: Server,
    private readonly cdn: Server,
    readonly url: string,
    private readonly cdnUrl: string,
  ) {}

  static async open(): Promise<HubServer> {
    const hub = createServer((request, response) => void server.answerAsHub(request, response));
    const cdn = createServer((request, response) => void server.answerAsCdn(request, response));
    const [url, cdnUrl] = await Promise.all([hub, cdn].map(listen));
    const server = new HubServer(hub, cdn, url, cdnUrl);
    return server;
  }

  close(): void {
    for (const server of [this.hub, this.cdn]) {
      server.close();
      server.closeAllConnections();
    }
  }

  /** Ranges asked for of a file, in order. */
  rangesOf(path: string): Array<string | undefined> {
    return this.requests.filter((request) => request.host === 'cdn' && request.path === path).map(({range}) => range);
  }

  private note(host: HubRequest['host'], request: IncomingMessage): string {
    const path = decodeURIComponent(new URL(request.url!, 'http://hub').pathname.slice(1));
    this.requests.push({host, path, range: request.headers.range});
    return path;
  }

  private async answerAsHub(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = this.note('hub', request);
    response.setHeader('access-control-allow-origin', '*');
    response.setHeader('access-control-expose-headers', EXPOSED);
    const [, listed] = /^api\/models\/([^/]+\/[^/]+)\/revision\/[^/]+$/.exec(path) ?? [];
    if (listed !== undefined) return this.list(listed, response);
    const [, repo, name] = /^([^/]+\/[^/]+)\/resolve\/[^/]+\/(.+)$/.exec(path) ?? [];
    const key = repo === undefined ? path : `${repo}/${name}`;
    const file = this.files.get(key);
    if (file === undefined) return void response.writeHead(404).end();
    if (file.large === false) return send(file, request, response);
    // Relative to nothing: another origin.
    response.writeHead(302, {location: `${this.cdnUrl}/${key}`}).end();
  }

  private list(repo: string, response: ServerResponse): void {
    const own = [...this.files].filter(([key]) => key.startsWith(`${repo}/`));
    if (this.listStatus !== 200 || own.length === 0) {
      return void response.writeHead(this.listStatus === 200 ? 404 : this.listStatus).end();
    }
    const siblings = own.map(([key, {bytes, large = true, listedSize, listedHash}]) => ({
      rfilename: key.slice(repo.length + 1),
      size: listedSize ?? bytes.length,
      ...(large && {lfs: {sha256: listedHash ?? hashOf(bytes), size: bytes.length, pointerSize: 130}}),
    }));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({sha: this.commit, siblings}));
  }

  private async answerAsCdn(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const file = this.files.get(this.note('cdn', request));
    response.setHeader('access-control-allow-origin', '*');
    if (file?.open !== false) response.setHeader('access-control-expose-headers', EXPOSED);
    if (file === undefined) return void response.writeHead(404).end();
    return send(file, request, response);
  }
}

async function send(file: HubFile, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const {bytes, ranges = true, contentType = 'application/octet-stream', open = true} = file;
  const status = file.statuses?.[0];
  if (status !== undefined) {
    if (!file.forever) file.statuses!.shift();
    return void response.writeHead(status).end();
  }
  if (file.refusesRanges && request.headers.range !== undefined) return void request.socket.destroy();
  const asked = ranges ? /^bytes=(\d+)-$/.exec(request.headers.range ?? '') : null;
  const start = asked ? Number(asked[1]) : 0;
  if (asked && start >= bytes.length) {
    return void response.writeHead(416, {'content-range': `bytes */${bytes.length}`}).end();
  }
  const etag = file.etag === undefined ? `"${hashOf(bytes)}"` : file.etag;
  response.writeHead(asked ? 206 : 200, {
    'content-type': contentType,
    ...(etag !== null && {etag}),
    ...(open && {'content-length': bytes.length - start}),
    ...(asked && {'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`}),
  });
  await sendBytes(file, start, response);
}

async function sendBytes(file: HubFile, start: number, response: ServerResponse): Promise<void> {
  const {bytes, pauseMs = 0, pieceBytes = 65_536} = file;
  const cut = file.cuts?.find((at) => at >= start);
  if (cut !== undefined) file.cuts!.splice(file.cuts!.indexOf(cut), 1);
  const stall = file.stalls ? file.stallAt : undefined;
  const end = Math.min(cut ?? Infinity, stall ?? Infinity, bytes.length);
  for (let at = start; at < end && !response.destroyed; at += pieceBytes) {
    await new Promise((resolve) => response.write(bytes.subarray(at, Math.min(at + pieceBytes, end)), resolve));
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  if (stall !== undefined && end === stall) {
    file.stalls!--;
    // Without a byte of the body, the headers would wait too.
    response.flushHeaders();
    return;
  }
  if (cut === undefined) return void response.end();
  // Ends the connection without the end of the answer, after what was written has come: a reader that learns of the end first may
  // drop what it has not read yet.
  response.flushHeaders();
  await new Promise((resolve) => setTimeout(resolve, 5));
  response.socket?.end();
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  return `http://localhost:${(server.address() as AddressInfo).port}`;
}

export function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
