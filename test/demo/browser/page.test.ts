import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {mkdir} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {expect} from 'chai';
import {chromium, type Browser} from 'playwright-core';
import {findChromium, softwareFlags} from '../../../hosts/chromium';
import {buildDemo, tinyCheckpoint} from './demo_fixture';
import {DemoPage} from './demo_page';
import {DemoServer} from './demo_server';
import {testDeviceView} from './device_view';
import {breakableWebGL, breakableWebGPU, crash, lateEvents, mortal, noGraphics, noWebGPU} from './preludes';

/** A run over 512 tokens on a software adapter of two cores. */
const RUN_MS = 400_000;

/** `SCREENSHOTS=docs/images npm test -- demo` writes pictures of the runs there. */
const screenshots = process.env.SCREENSHOTS;

describe('the demo page in Chromium', function () {
  this.timeout(RUN_MS);
  let browser: Browser;
  let server: DemoServer;
  let folder: string;
  let page: DemoPage | undefined;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'pbs-demo-'));
    buildDemo(join(folder, 'page'));
    // In a folder of the host, as the page's paths are to be relative.
    server = await DemoServer.open(folder);
    browser = await chromium.launch({executablePath: findChromium(), args: softwareFlags});
  });
  after(async () => {
    await browser?.close();
    server?.close();
    rmSync(folder, {recursive: true, force: true});
  });
  afterEach(async () => {
    await page?.close();
    page = undefined;
  });

  async function open(query: string, prelude?: string): Promise<DemoPage> {
    page = await DemoPage.open(browser, server, 'page/', query, prelude);
    return page;
  }

  /** A page with a random model that answers nonsense, within a second. */
  async function openTiny(query: string, prelude?: string): Promise<DemoPage> {
    const opened = await open(query, prelude);
    await opened.ready();
    await opened.page.setInputFiles('#model-files', tinyCheckpoint(folder));
    await opened.waitForText('#model-info', '2 layers', 60_000);
    await opened.ready();
    return opened;
  }

  async function photograph(shown: DemoPage, name: string): Promise<void> {
    if (screenshots === undefined) return;
    await mkdir(screenshots, {recursive: true});
    // Charts are drawn in tasks of their own.
    await shown.page.waitForTimeout(2000);
    await shown.page.screenshot({path: join(screenshots, `${name}.png`), fullPage: true});
  }

  for (const [backend, title] of [
    ['webgpu', 'WebGPU'],
    ['webgl', 'WebGL'],
  ]) {
    it(`finds a fact with both ways of attending on ${title}, and shows what was kept`, async () => {
      const shown = await open(`backend=${backend}&length=512`);
      await shown.ready();
      expect(await shown.text('#machine')).to.include(title);
      await shown.waitForText('#excerpt mark', 'The secret number of the');
      const [number] = /\d{5}/.exec(await shown.text('#excerpt mark'))!;
      expect(await shown.ask(RUN_MS)).to.equal('Done: both answers are right.');
      for (const card of ['#exact', '#pbs']) {
        expect(await shown.text(card)).to.match(new RegExp(`${number} . right .*Time to first token [\\d.]+ m?s`));
      }
      expect(await shown.text('#speed-up')).to.match(/at 512 tokens, with \d+% of the blocks/);
      expect(await shown.text('#blocks-kept')).to.match(/kept \d+% of the blocks/);
      await shown.page.waitForSelector('#picture canvas, #picture img, #picture svg');
      expect(await shown.page.locator('#layer option').count()).to.equal(8);
      const other = (await shown.page.locator('#layer').inputValue()) === '0' ? 1 : 0;
      await shown.page.selectOption('#layer', {index: other});
      await shown.waitForText('#picture-words', `Layer ${other + 1}, head`);
      expect(await shown.page.locator('#times-table tbody tr').count()).to.be.greaterThan(0);
      expect(shown.page.url()).to.include(`backend=${backend}`);
      await photograph(shown, `demo-${backend}`);
    });
  }

  it('stops when it is told to, and can ask again', async () => {
    const shown = await open('backend=webgpu&length=2048');
    await shown.ready();
    await shown.page.click('#ask');
    await shown.waitForText('#progress-text', 'layer 1 of 8', RUN_MS);
    expect(await shown.text('#ask')).to.equal('Stop');
    await shown.page.click('#ask');
    expect(await shown.finished(120_000)).to.equal('Stopped.');
    await shown.page.selectOption('#length', '512');
    await shown.page.click('#ask');
    await shown.waitForText('#progress-text', 'layer 1 of 8', RUN_MS);
  });

  it('reads a checkpoint from files, writes on, and says what is wrong with broken ones', async () => {
    const shown = await openTiny('backend=webgpu&task=continue&tokens=12&temperature=0.8');
    expect(await shown.ask(RUN_MS)).to.include('Done');
    expect(await shown.text('#exact')).to.include('12 tokens');
    const enabled = await shown.page.locator('#length option:not([disabled])').allInnerTexts();
    expect(enabled, 'what the model can read').to.deep.equal(['512 tokens']);

    const files = tinyCheckpoint(folder);
    writeFileSync(files[2], readFileSync(files[2]).subarray(0, 5000));
    await shown.page.setInputFiles('#model-files', files);
    const failure = await shown.failure('These files are not a model');
    expect(failure)
      .to.match(/model\.safetensors: .* is it truncated\?/)
      .and.include('the model from before');
    expect(await shown.ask(RUN_MS), 'the model from before').to.include('Done');
    await shown.page.setInputFiles('#model-files', tinyCheckpoint(folder));
    await shown.ready();
    expect(await shown.text('#failure')).to.equal('');
  });

  it('offers models by name and by address, and says what is wrong with an address', async () => {
    const shown = await openTiny('backend=cpu&task=continue&tokens=2');
    const names = await shown.page.locator('#model option').allInnerTexts();
    expect(names).to.have.lengthOf(6);
    expect(names[1]).to.equal('SmolLM2 135M Instruct (105 MB, Apache-2.0)');
    expect(await shown.page.isVisible('#model-address')).to.equal(false);
    await shown.page.selectOption('#model', 'address');
    await shown.page.fill('#model-address', 'gpt2');
    await shown.page.press('#model-address', 'Enter');
    expect(await shown.text('#model-address-error'))
      .to.include('"gpt2"')
      .and.include('owner/name');
    await shown.page.fill('#model-address', 'http://127.0.0.1:9/none.gguf');
    await shown.page.press('#model-address', 'Enter');
    expect(await shown.page.isVisible('#model-address-error')).to.equal(false);
    expect(await shown.failure('A file could not be downloaded')).to.include('http://127.0.0.1:9/none.gguf');
  });

  it('takes no notice of events that come after their answer', async () => {
    const shown = await openTiny('backend=webgl&task=continue&tokens=2', lateEvents);
    await shown.page.waitForTimeout(1000);
    expect(await shown.text('#status')).to.equal('Ready.');
    expect(await shown.ask(RUN_MS)).to.include('Done');
    await shown.page.waitForTimeout(1000);
    expect(await shown.text('#status')).to.include('Done');
    expect(await shown.page.isVisible('#progress')).to.equal(false);
    for (const card of ['#exact', '#pbs']) expect(await shown.text(card)).to.include('2 tokens');
  });

  it('says that a text is too short, and takes a longer one', async () => {
    const shown = await open('backend=webgpu&length=512');
    await shown.ready();
    await shown.page.selectOption('#book', 'own');
    await shown.page.fill('#text', 'A short text. It has two sentences.');
    expect(await shown.failure('The text is too short')).to.match(/it has \d+/);
    await shown.press('Choose another text');
    await shown.page.fill('#text', 'It was a long and quiet road to the sea. It went on. '.repeat(60));
    await shown.waitForText('#excerpt', 'long and quiet road');
    expect(await shown.text('#failure')).to.equal('');
  });

  it('says that the model reads no such context, and offers one that it reads', async () => {
    const shown = await openTiny('backend=webgpu&length=4096');
    expect(await shown.text('#length-note')).to.include('reads at most 512 tokens');
    expect(await shown.page.inputValue('#length')).to.equal('512');
  });

  it('takes WebGL where there is no WebGPU, and says why', async () => {
    const shown = await open('', noWebGPU);
    await shown.ready();
    expect(await shown.text('#machine')).to.match(/^WebGL.*this browser has no WebGPU/);
  });

  it('offers another backend where the one asked for does not work', async () => {
    const shown = await open('backend=webgpu', noWebGPU);
    expect(await shown.failure('WebGPU does not work')).to.include('this browser has no WebGPU');
    await shown.press('Try WebGL');
    await shown.ready();
    expect(await shown.text('#machine')).to.match(/^WebGL/);
  });

  it('computes on the processor where there are no graphics at all', async () => {
    const shown = await open('', noGraphics);
    await shown.ready();
    expect(await shown.text('#machine')).to.match(/^CPU/);
  });

  for (const [what, backend, prelude, word, title] of [
    ['the WebGPU device is lost', 'webgpu', breakableWebGPU, 'lose', 'took the graphics device away'],
    ['memory runs out', 'webgpu', breakableWebGPU, 'fill', 'memory did not suffice'],
    ['the WebGL context is lost', 'webgl', breakableWebGL, 'lose', 'took the graphics device away'],
  ]) {
    it(`recovers without a reload when ${what}`, async () => {
      const shown = await openTiny(`backend=${backend}&task=continue&tokens=1024`, prelude);
      await shown.page.click('#ask');
      await shown.waitForText('#progress-text', 'writing', RUN_MS);
      await shown.tellWorker(word);
      const failure = await shown.failure(title, 60_000);
      expect(failure).to.include('Restart the engine');
      server.workerPrelude = '';
      await shown.press('Restart the engine');
      await shown.ready();
      expect(await shown.text('#model-info'), 'the same model').to.include('2 layers');
      await shown.page.locator('#writing summary').click();
      await shown.page.fill('#max-tokens', '4');
      expect(await shown.ask(RUN_MS)).to.include('Done');
    });
  }

  it('takes another book while Ask starts the engine again', async () => {
    const shown = await openTiny('backend=webgl&task=continue&tokens=2&book=dubliners', mortal);
    // Nobody is told of the end of a worker that has nothing to do.
    const [worker] = shown.page.workers();
    const ended = new Promise((resolve) => worker.once('close', resolve));
    await shown.tellWorker('end');
    await ended;
    const answered = await shown.ask(RUN_MS, () => shown.page.selectOption('#book', {index: 1}));
    expect(answered).to.include('Done');
    for (const card of ['#exact', '#pbs']) expect(await shown.text(card)).to.include('2 tokens');
    expect(await shown.text('#failure')).to.equal('');
  });

  testDeviceView(open, photograph);

  it('recovers from a worker that ends', async () => {
    const shown = await open('', crash);
    expect(await shown.failure('The engine stopped')).to.include('broken by the test');
    server.workerPrelude = '';
    await shown.press('Restart the engine');
    await shown.ready();
  });
});
