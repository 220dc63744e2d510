import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {expect} from 'chai';
import esbuild from 'esbuild';
import {chromium, type Browser, type BrowserContext, type Page} from 'playwright-core';
import {findChromium, softwareFlags} from '../../../hosts/chromium';
import {HubServer} from '../../runner/hub/hub_server';
import {tinyConfig, tinyTensors, writeSafetensors} from '../../runner/llama/tiny/random_checkpoint';
import {DemoServer} from './demo_server';

const root = fileURLToPath(new URL('../../..', import.meta.url));

const WEIGHTS = 'owner/name/model.safetensors';

describe('the engine loads models by address in Chromium, under the page’s policy', function () {
  this.timeout(60_000);
  let browser: Browser;
  let site: DemoServer;
  let folder: string;
  let hub: HubServer;
  let context: BrowserContext;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'pbs-engine-'));
    const [policy] = /<meta\s+http-equiv="Content-Security-Policy"[^>]*>/.exec(
      readFileSync(join(root, 'demo/index.html'), 'utf8'),
    )!;
    writeFileSync(
      join(folder, 'index.html'),
      `<!doctype html>${policy}<link rel="icon" href="data:," /><script type="module" src="driver.js"></script>`,
    );
    await esbuild.build({
      entryPoints: {'assets/worker-engine': 'demo/engine/worker.ts', driver: 'test/demo/browser/engine_driver.ts'},
      bundle: true,
      format: 'esm',
      target: 'es2022',
      outdir: folder,
      absWorkingDir: root,
      logLevel: 'error',
    });
    site = await DemoServer.open(folder);
    browser = await chromium.launch({executablePath: findChromium(), args: softwareFlags});
  });
  after(async () => {
    await browser?.close();
    site?.close();
    rmSync(folder, {recursive: true, force: true});
  });

  beforeEach(async () => {
    site.workerPrelude = '';
    hub = await HubServer.open();
    serveTiny();
    // With storage of its own.
    context = await browser.newContext();
  });
  afterEach(async () => {
    await context.close();
    hub.close();
  });

  /** With the demo's tokenizer; the weights take a second or so where `slow`. */
  function serveTiny(): void {
    const config = {...tinyConfig, vocab_size: 8192};
    const small = (bytes: Uint8Array) => ({bytes, large: false});
    hub.files.set('owner/name/config.json', small(new TextEncoder().encode(JSON.stringify(config))));
    const tokenizer = readFileSync(join(root, 'demo/public/model/tokenizer.json'));
    hub.files.set('owner/name/tokenizer.json', small(tokenizer));
    hub.files.set(WEIGHTS, {bytes: new Uint8Array(writeSafetensors(tinyTensors(config)))});
  }

  function slow(): void {
    Object.assign(hub.files.get(WEIGHTS)!, {pauseMs: 60, pieceBytes: 65_536});
  }

  async function open(): Promise<Page> {
    const page = await context.newPage();
    await page.goto(site.url);
    await page.waitForFunction(() => window.driver !== undefined);
    return page;
  }

  const load = (page: Page, address = 'owner/name', stopAfter?: number) =>
    page.evaluate(([what, where, when]) => window.driver.load(what, where, when), [
      address,
      hub.url,
      stopAfter,
    ] as const);
  const list = (page: Page) => page.evaluate(() => window.driver.list());
  const remove = (page: Page, id: string) => page.evaluate((which) => window.driver.remove(which), id);
  const violations = (page: Page) => page.evaluate(() => window.driver.violations);
  const sizeOfModel = () => [...hub.files.values()].reduce((sum, {bytes}) => sum + bytes.length, 0);

  it('keeps a model, loads it again without a network, and deletes it', async () => {
    const page = await open();
    const {info, failure, progress} = await load(page);
    expect(failure).to.equal(undefined);
    expect(info).to.include({architecture: 'LlamaForCausalLM', layers: 2, canKeep: true});
    expect(progress.at(-1)).to.include({step: 'download', done: sizeOfModel(), total: sizeOfModel()});
    const [model, ...others] = await list(page);
    expect(model).to.include({name: `${hub.url}/owner/name`, bytes: sizeOfModel(), complete: true});
    expect(others).to.deep.equal([]);

    const asked = hub.requests.length;
    const other = await open();
    expect((await load(other)).info).to.include({layers: 2});
    expect(hub.requests.length).to.equal(asked);
    expect(await remove(other, model.id)).to.equal(undefined);
    expect(await list(page)).to.deep.equal([]);
    expect(await violations(page)).to.deep.equal([]);
    // The worker alone reaches other hosts.
    await page.evaluate((other) => fetch(other).catch(() => {}), hub.url);
    expect(await violations(page)).to.deep.equal([`connect-src: ${hub.url}/`]);
  });

  it('stops when it is told to, goes on where it stopped, and after a page that was closed', async () => {
    slow();
    const page = await open();
    const stopped = await load(page, 'owner/name', sizeOfModel() - 800_000);
    expect(stopped.failure).to.deep.equal({name: 'AbortError', message: 'loading the model was cancelled'});
    const [part] = await list(page);
    expect(part).to.include({complete: false});
    expect(part.bytes).to.be.within(sizeOfModel() - 800_000, sizeOfModel() - 1);

    const second = load(page).catch(() => undefined);
    while (hub.rangesOf(WEIGHTS).length < 2) await page.waitForTimeout(20);
    await page.waitForTimeout(200);
    await page.close();
    await second;

    const {info} = await load(await open());
    expect(info).to.include({layers: 2});
    const starts = hub.rangesOf(WEIGHTS).map((range) => Number(/^bytes=(\d+)-$/.exec(range!)![1]));
    expect(starts).to.have.length(3);
    expect(starts[0]).to.equal(0);
    expect(starts[1]).to.be.greaterThan(0);
    expect(starts[2], 'what came before the page was closed').to.be.greaterThan(starts[1]);
  });

  it('downloads once for two tabs, and deletes nothing that is on its way', async () => {
    slow();
    const [first, second] = [await open(), await open()];
    const both = Promise.all([load(first), load(second)]);
    while (hub.rangesOf(WEIGHTS).length === 0) await first.waitForTimeout(20);
    const [{id}] = await list(first);
    expect(await remove(second, id)).to.match(/is in use, here or in another tab; wait for that, or cancel it first/);
    for (const {info, failure} of await both) {
      expect(failure).to.equal(undefined);
      expect(info).to.include({layers: 2});
    }
    expect(hub.rangesOf(WEIGHTS)).to.deep.equal(['bytes=0-']);
  });

  it('reads what is stored while another tab writes what it stores', async () => {
    const [page, other] = [await open(), await open()];
    await load(page);
    const listed: unknown[] = [];
    const writing = other.evaluate(async () => {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle('models');
      for await (const folder of root.values()) {
        const handle = await (folder as FileSystemDirectoryHandle).getFileHandle('manifest.json');
        const text = await (await handle.getFile()).text();
        for (let i = 0; i < 150; ++i) {
          await new Promise((resolve) => setTimeout(resolve, 2));
          const stream = await handle.createWritable();
          await stream.write(text);
          await stream.close();
        }
      }
    });
    let isWriting = true;
    void writing.finally(() => (isWriting = false));
    while (isWriting) {
      listed.push(...(await list(page)).map(({name, complete}) => `${name} ${complete}`));
    }
    await writing;
    expect(new Set(listed)).to.deep.equal(new Set([`${hub.url}/owner/name true`]));
  });

  it('goes on after cuts on a host that hides its headers from pages', async () => {
    slow();
    Object.assign(hub.files.get(WEIGHTS)!, {open: false, cuts: [100_000, 700_000]});
    const page = await open();
    const {info, failure} = await load(page);
    expect(failure).to.equal(undefined);
    expect(info).to.include({layers: 2});
    expect(hub.rangesOf(WEIGHTS)).to.have.length(3);
    expect(hub.rangesOf(WEIGHTS)[2]).not.to.equal('bytes=0-');
  });

  it('says that there is too little room, before it downloads', async () => {
    site.workerPrelude = 'StorageManager.prototype.estimate = async () => ({quota: 1_500_000, usage: 500_000});';
    const {failure} = await load(await open());
    expect(failure).to.include({name: 'DownloadError'});
    expect(failure!.message).to.match(
      /owner\/name: 1\.8 MB are to be stored and 1\.0 MB are free; delete stored models/,
    );
    expect(hub.rangesOf(WEIGHTS)).to.deep.equal([]);
  });

  it('says that the browser stores no more, keeps what is there, and goes on', async () => {
    const page = await open();
    const session = await context.newCDPSession(page);
    const origin = new URL(site.url).origin;
    await session.send('Storage.overrideQuotaForOrigin', {origin, quotaSize: 1_000_000});
    const {failure} = await load(page);
    expect(failure).to.include({name: 'DownloadError'});
    expect(failure!.message).to.match(
      /could not be stored: .*[nN]o space available.*; delete stored models or free space$/,
    );
    expect((await list(page))[0]).to.include({complete: false});
    await session.send('Storage.overrideQuotaForOrigin', {origin});
    expect((await load(page)).info).to.include({layers: 2});
  });

  it('says what is wrong with addresses, answers and bytes', async () => {
    const page = await open();
    const failure = async (address: string) => (await load(page, address)).failure!;
    expect(await failure('gpt2')).to.deep.include({name: 'DownloadError'});
    expect((await failure('owner/other')).message).to.match(/answered 404: owner\/other, revision main, is not there/);
    hub.files.get(WEIGHTS)!.listedHash = 'ab'.repeat(32);
    expect((await failure('owner/name')).message).to.match(/its sha256 is [\da-f]{64}; accepted: abab/);
    delete hub.files.get(WEIGHTS)!.listedHash;
    expect((await load(page)).info).to.include({layers: 2});
    hub.files.set('files/x.gguf', {bytes: new TextEncoder().encode('no model'), large: false});
    expect(await failure(`${hub.url}/files/x.gguf`)).to.include({name: 'CheckpointError'});
  });
});
