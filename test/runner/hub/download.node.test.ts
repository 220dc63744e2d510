import {readFileSync} from 'node:fs';
import {expect} from 'chai';
import fc from 'fast-check';
import type {FileOnDisk} from '../../../runner/hub/folder_store';
import {openByAddress, type DownloadProgress, type OpenOptions} from '../../../runner/hub/open_by_address';
import {rejection} from '../llama/tiny/random_checkpoint';
import {HubServer, type HubFile} from './hub_server';
import {someBytes, temporaryStore} from './temporary_store';

const AT_ONCE = {backOffMs: [0, 0, 0]};

/** Comes in pieces between which there is time to stop. */
const slow = {pauseMs: 60, pieceBytes: 50_000};

const REPO_FILE = 'owner/name/x.gguf';

describe('downloads', () => {
  let server: HubServer;
  let kept: ReturnType<typeof temporaryStore>;

  beforeEach(async () => {
    server = await HubServer.open();
    kept = temporaryStore();
  });
  afterEach(() => {
    server.close();
    kept.remove();
  });

  /** The one file of an address, after serving it like this. */
  async function get(address: string, options: OpenOptions = {}): Promise<FileOnDisk> {
    const [file] = await openByAddress(address, kept.store, {hub: server.url, ...AT_ONCE, ...options});
    return file;
  }

  function serve(file: HubFile, path = REPO_FILE): Uint8Array {
    server.files.set(path, file);
    return file.bytes;
  }

  const contentOf = ({path}: FileOnDisk) => new Uint8Array(readFileSync(path));
  const bytesStored = async () => (await kept.store.list())[0]?.bytes;
  const url = () => `${server.url}/files/x.gguf`;
  const FILE = 'files/x.gguf';

  /** Stops as soon as something has come. */
  async function begin(address: string): Promise<number> {
    const stop = new AbortController();
    const onProgress = ({done}: DownloadProgress) => done > 0 && stop.abort(new Error('stopped by the test'));
    expect(await rejection(get(address, {signal: stop.signal, onProgress}))).to.equal('stopped by the test');
    return (await bytesStored())!;
  }

  it('gets a file of a hub from another host, and later without asking anybody', async () => {
    const bytes = serve({bytes: someBytes(200_000)});
    expect(contentOf(await get(REPO_FILE))).to.deep.equal(bytes);
    const [model] = await kept.store.list();
    expect(model).to.include({name: `${server.url}/${REPO_FILE}`, bytes: 200_000, complete: true});
    const asked = server.requests.length;
    expect(contentOf(await get('owner/name@main/x.gguf'))).to.deep.equal(bytes);
    expect(server.requests.length).to.equal(asked);
  });

  it('goes on after a cut at any byte, in one go or another', async () => {
    const cuts = fc.array(fc.nat(5000), {maxLength: 6});
    const host = fc.record({large: fc.boolean(), open: fc.boolean(), listed: fc.boolean()});
    await fc.assert(
      fc.asyncProperty(fc.integer({min: 1, max: 5000}), cuts, host, async (length, places, {large, open, listed}) => {
        const bytes = someBytes(length);
        const key = listed ? REPO_FILE : FILE;
        serve({bytes, cuts: places.filter((at) => at < length), large, open}, key);
        const address = listed ? REPO_FILE : url();
        // More cuts in one place than attempts end it; asked again it goes on.
        let file: FileOnDisk | undefined;
        for (let attempt = 0; file === undefined && attempt < 4; ++attempt) {
          file = await get(address).catch((error: Error) => {
            expect(error.message).to.match(/the connection was cut.*try again to go on/);
            return undefined;
          });
        }
        expect(contentOf(file!)).to.deep.equal(bytes);
        await kept.store.delete((await kept.store.list())[0].id);
      }),
      {numRuns: 60},
    );
  });

  it('goes on with what is stored, and asks for the rest alone', async () => {
    const bytes = serve({bytes: someBytes(300_000), ...slow});
    const before = await begin(REPO_FILE);
    expect(before).to.be.within(1, 299_999);
    expect(await kept.store.list()).to.have.length(1);
    const progress: DownloadProgress[] = [];
    expect(contentOf(await get(REPO_FILE, {onProgress: (now) => progress.push(now)}))).to.deep.equal(bytes);
    expect(server.rangesOf(REPO_FILE)).to.deep.equal(['bytes=0-', `bytes=${before}-`]);
    expect(progress[0]).to.include({done: before, total: 300_000});
    expect(progress.at(-1)).to.include({done: 300_000, total: 300_000});
    const steps = progress.map(({done}) => done);
    expect(steps).to.deep.equal([...steps].sort((a, b) => a - b));
  });

  it('tells how fast it is', async () => {
    serve({bytes: someBytes(200_000), pauseMs: 50, pieceBytes: 10_000});
    const progress: DownloadProgress[] = [];
    await get(REPO_FILE, {onProgress: (now) => progress.push(now)});
    // 20 pieces in a second or, on a busy machine, in more.
    expect(progress.at(-1)!.bytesPerSecond).to.be.within(20_000, 220_000);
  });

  for (const listed of [true, false]) {
    it(`starts over on a host without ranges (${listed ? 'of a hub' : 'by its URL'})`, async () => {
      const key = listed ? REPO_FILE : FILE;
      const bytes = serve({bytes: someBytes(300_000), ranges: false, cuts: [100_000]}, key);
      expect(contentOf(await get(listed ? REPO_FILE : url()))).to.deep.equal(bytes);
    });
  }

  it('asks without a range where a browser may not ask for one', async () => {
    const bytes = serve({bytes: someBytes(100_000), refusesRanges: true});
    expect(contentOf(await get(REPO_FILE))).to.deep.equal(bytes);
    expect(server.rangesOf(REPO_FILE)).to.deep.equal(['bytes=0-', undefined]);
  });

  it('gives up on a host without ranges that is cut at the same place again and again', async () => {
    serve({bytes: someBytes(300_000), ranges: false, cuts: Array<number>(20).fill(100_000)});
    expect(await rejection(get(REPO_FILE))).to.match(/x\.gguf: the connection was cut.*try again to go on/);
    // The first brings something new; after that there are as many attempts as pauses, and one.
    expect(server.rangesOf(REPO_FILE)).to.have.length(5);
  });

  it('starts over if the file has changed meanwhile', async () => {
    serve({bytes: someBytes(300_000), ...slow}, FILE);
    await begin(url());
    const changed = serve({bytes: someBytes(300_000, 2)}, FILE);
    expect(contentOf(await get(url()))).to.deep.equal(changed);
    expect(server.rangesOf(FILE)[2]).to.equal('bytes=0-');
  });

  it('starts over if the file has become shorter than what is stored', async () => {
    serve({bytes: someBytes(300_000), ...slow}, FILE);
    await begin(url());
    const changed = serve({bytes: someBytes(1000, 2)}, FILE);
    expect(contentOf(await get(url()))).to.deep.equal(changed);
  });

  it('starts over if the hub has another version now', async () => {
    serve({bytes: someBytes(300_000), ...slow});
    await begin(REPO_FILE);
    server.commit = 'fedcba';
    const changed = serve({bytes: someBytes(300_000, 2)});
    expect(contentOf(await get(REPO_FILE))).to.deep.equal(changed);
    expect(server.rangesOf(REPO_FILE)).to.deep.equal(['bytes=0-', 'bytes=0-']);
  });

  it('goes on after a server’s bad moments, and after silence', async () => {
    const bytes = serve({bytes: someBytes(100_000), statuses: [503, 429], stallAt: 50_000, stalls: 1});
    expect(contentOf(await get(REPO_FILE, {silenceMs: 300}))).to.deep.equal(bytes);
    expect(server.rangesOf(REPO_FILE)).to.deep.equal(['bytes=0-', 'bytes=0-', 'bytes=0-', 'bytes=50000-']);
  });

  it('waits for a slow host', async () => {
    const bytes = serve({bytes: someBytes(20_000), pauseMs: 150, pieceBytes: 5000});
    expect(contentOf(await get(REPO_FILE, {silenceMs: 1000}))).to.deep.equal(bytes);
    expect(server.rangesOf(REPO_FILE)).to.have.length(1);
  });

  it('ends at once when it is told to, also in a pause and in silence', async () => {
    serve({bytes: someBytes(1000), statuses: [503], forever: true});
    const late = () => AbortSignal.timeout(200);
    const begun = performance.now();
    expect(await rejection(get(REPO_FILE, {backOffMs: [60_000], signal: late()}))).to.match(/timeout/);
    serve({bytes: someBytes(1000), stallAt: 500, stalls: 1});
    expect(await rejection(get(REPO_FILE, {signal: late()}))).to.match(/timeout/);
    expect(performance.now() - begun).to.be.below(5000);
  });

  const refused: Array<[what: string, file: Partial<HubFile>, message: RegExp]> = [
    ['what is not there', {statuses: [404]}, /x\.gguf: the server answered 404: the file is not there/],
    ['what one has to log in for', {statuses: [401]}, /answered 401: the file is private or gated/],
    ['what is forbidden', {statuses: [403]}, /answered 403: .*; accepted: models that anybody may download/],
    ['a web page', {contentType: 'text/html; charset=utf-8'}, /the server sends a web page; accepted: a file/],
    [
      'too few bytes',
      {listedSize: 2000},
      /the server has 1000 bytes; accepted: 2000, which the hub says\. What was stored/,
    ],
    ['too many bytes', {listedSize: 900}, /the server has 1000 bytes; accepted: 900/],
    [
      'too many bytes that are not announced',
      {listedSize: 900, open: false, ranges: false},
      /sends more than 900 bytes/,
    ],
    ['other bytes', {listedHash: 'ab'.repeat(32)}, /its sha256 is [\da-f]{64}; accepted: (ab){32}\. What was stored/],
  ];
  for (const [what, file, message] of refused) {
    it(`refuses ${what}, and keeps nothing of it`, async () => {
      serve({bytes: someBytes(1000), ...file});
      expect(await rejection(get(REPO_FILE)))
        .to.match(/^http:\/\/localhost:\d+\/owner\/name\/resolve\//)
        .and.match(message);
      expect(await kept.store.list()).to.deep.equal([]);
    });
  }

  it('says that a host is not there', async () => {
    const gone = await HubServer.open();
    gone.close();
    expect(await rejection(get(`${gone.url}/x.gguf`))).to.match(
      /x\.gguf: the host could not be reached: .*ECONNREFUSED/,
    );
  });

  it('says before it starts that there is too little room', async () => {
    const bytes = serve({bytes: someBytes(2_000_000)});
    kept.store.room = async () => 1_500_000;
    expect(await rejection(get(REPO_FILE))).to.match(/x\.gguf: 2\.0 MB are to be stored and 1\.5 MB are free; delete/);
    expect(server.rangesOf(REPO_FILE)).to.deep.equal([]);
    serve({bytes}, FILE);
    expect(await rejection(get(url()))).to.match(/x\.gguf: 2\.0 MB are to be stored/);
  });
});
