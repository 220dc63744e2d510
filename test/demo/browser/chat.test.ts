import {mkdtempSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {expect} from 'chai';
import {chromium, type Browser} from 'playwright-core';
import {findChromium, softwareFlags} from '../../../hosts/chromium';
import {createTokenizer, encode} from '../../../runner/tokenizer';
import {HubServer} from '../../runner/hub/hub_server';
import {buildDemo, tinyCheckpoint, writePDF, type TinyForm} from './demo_fixture';
import {DemoPage} from './demo_page';
import {DemoServer} from './demo_server';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const book = readFileSync(join(root, 'demo/public/books/dubliners.txt'), 'utf8');

const tokenizer = createTokenizer(
  JSON.parse(readFileSync(join(root, 'demo/public/model/tokenizer.json'), 'utf8')) as object,
);

const TEMPLATE =
  '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';

const textFile = (name: string, text: string | Buffer) => ({name, mimeType: '', buffer: Buffer.from(text)});

describe('the chat of the demo page in Chromium', function () {
  this.timeout(60_000);
  let browser: Browser;
  let server: DemoServer;
  let folder: string;
  let shown: DemoPage | undefined;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'pbs-chat-'));
    buildDemo(join(folder, 'page'));
    server = await DemoServer.open(folder);
    browser = await chromium.launch({executablePath: findChromium(), args: softwareFlags});
  });
  after(async () => {
    await browser?.close();
    server?.close();
    rmSync(folder, {recursive: true, force: true});
  });
  afterEach(async () => {
    await shown?.close();
    shown = undefined;
  });

  async function open(query = 'backend=cpu', workerPrelude?: string): Promise<DemoPage> {
    shown = await DemoPage.open(browser, server, 'page/', query, workerPrelude);
    await shown.ready();
    return shown;
  }

  async function openTiny(form: TinyForm = {contextLength: 2048, template: TEMPLATE}): Promise<DemoPage> {
    const opened = await open();
    await takeModel(opened, tinyCheckpoint(folder, form));
    return opened;
  }

  async function takeModel({page}: DemoPage, files: string[]): Promise<void> {
    await page.setInputFiles('#model-files', files);
    await shown!.waitForText('#model-info', '2 layers');
    await shown!.ready();
    await page.locator('#sampling-part summary').click();
    await page.fill('#chat-max-tokens', '8');
  }

  const replies = (page: DemoPage) => page.page.locator('.stats').count();

  /** Sends a message and waits for as many answers; what the last ones show. */
  async function send(page: DemoPage, message: string, answers = 1): Promise<string> {
    const before = await replies(page);
    await page.page.fill('#message', message);
    await page.page.press('#message', 'Enter');
    return answered(page, before + answers);
  }

  async function answered(page: DemoPage, count: number): Promise<string> {
    await page.page.waitForFunction((n) => document.querySelectorAll('.stats').length === n, count);
    await page.waitForText('#send', 'Send');
    return page.text('.answer-message:last-child');
  }

  const gauge = async (page: DemoPage) => {
    // Counted when typing has paused.
    await page.page.waitForTimeout(500);
    return page.text('#gauge-words');
  };

  async function takeDocument(page: DemoPage, name: string, text: string | Buffer): Promise<string> {
    await page.page.setInputFiles('#document-file', textFile(name, text));
    await page.page.waitForFunction(
      () =>
        document.querySelector('#document-refused:not([hidden])') ??
        /\d/.test(document.querySelector('#document-chip:not([hidden]) #document-tokens')?.textContent ?? ''),
    );
    return page.text('#document-chip:not([hidden]), #document-refused:not([hidden])');
  }

  it('answers about a document, and reads of the next question only what is new', async () => {
    const page = await openTiny();
    expect(await page.page.isVisible('#plain-note')).to.equal(false);
    expect(await takeDocument(page, 'notes.md', book.slice(3000, 5000))).to.match(/^notes\.md \d+ tokens Remove$/);
    await page.page.fill('#message', 'Who is it?');
    const counted = await gauge(page);
    const [, used, document, rest] =
      /^([\d,]+) of 2,048 tokens: document ([\d,]+), the rest ([\d,]+), room for the answer 8\.$/.exec(counted)!;
    expect(Number(used)).to.equal(Number(document) + Number(rest) + 8);
    expect(await page.page.locator('#gauge').evaluate((meter: HTMLMeterElement) => meter.value)).to.equal(Number(used));

    const first = await send(page, 'Who is it?');
    const prompt = Number(used) - 8;
    expect(first)
      .to.match(/^PBS attention .*First token after [\d.]+ m?s/)
      .and.include(`${prompt} tokens of prompt read`);
    expect(first).to.match(/read exactly: .*tokens a second.*cut off after 8 tokens/);
    expect(await page.text('#chat-announcement')).to.match(/^PBS attention: \S/);
    const second = await send(page, 'And then?');
    const [, reused, all] = /([\d,]+) of ([\d,]+) tokens of prompt were still there/.exec(second)!;
    expect(Number(reused)).to.be.within(prompt, Number(all) - 1);

    await page.press('Regenerate');
    const third = await answered(page, 2);
    expect(third).to.include(`${Number(all) - 1} of ${all} tokens of prompt were still there`);
    expect(await page.page.locator('.message').count()).to.equal(4);
    await page.press('Clear');
    expect(await page.page.locator('.message').count()).to.equal(0);
    expect(await gauge(page)).to.include(`document ${document}`);
    expect(await send(page, 'Who is it?'), 'the context is gone').to.include(`${prompt} tokens of prompt read`);
  });

  it('stops while it writes, keeps what is written, and goes on', async () => {
    const page = await openTiny();
    await page.page.fill('#chat-max-tokens', '1024');
    await page.page.fill('#message', 'Tell me all.');
    await page.page.press('#message', 'Enter');
    await page.page.waitForFunction(() => (document.querySelector('.reply .written')?.textContent?.length ?? 0) > 40);
    expect(await page.text('#send')).to.equal('Stop');
    // Sooner it is half of a double-click.
    await page.page.waitForTimeout(500);
    await page.page.click('#send');
    expect(await answered(page, 1)).to.match(/stopped after \d+ tokens$/);
    expect(await page.text('#status')).to.equal('Stopped.');
    await page.page.fill('#chat-max-tokens', '4');
    expect(await send(page, 'Go on.')).to.match(/[1-9]\d* of \d+ tokens of prompt were still there/);
  });

  it('reads PDFs, and says what a document has too many tokens for', async () => {
    const page = await openTiny();
    const pages = ['The gate (the old one) opens at nine.\nIt closes at five.', 'Tickets cost three pounds.'];
    const tokens = encode(tokenizer, pages.join('\n\n')).length;
    expect(await takeDocument(page, 'gate.pdf', writePDF(pages))).to.equal(`gate.pdf ${tokens} tokens Remove`);
    await page.press('Remove');
    expect(await page.page.isVisible('#document-file')).to.equal(true);

    await page.page.setInputFiles('#document-file', textFile('scan.pdf', writePDF([''])));
    expect(await page.failure('This file is no document')).to.include('scan.pdf holds no text');
    await page.page.setInputFiles('#document-file', textFile('broken.pdf', '%PDF-1.7 and no more'));
    await page.waitForText('#failure', 'broken.pdf cannot be read as a PDF: ');

    const refused = await takeDocument(page, 'book.txt', book.slice(0, 20_000));
    const [, all, room] = /^book\.txt has ([\d,]+) tokens; ([\d,]+) fit beside/.exec(refused)!;
    expect(Number(all.replace(',', ''))).to.be.greaterThan(2048);
    await page.page.fill('#message', 'Who?');
    await page.page.press('#message', 'Enter');
    await page.page.waitForFunction(() => document.activeElement?.id === 'document-cut');
    expect(await page.page.locator('.message').count(), 'nothing is asked').to.equal(0);
    await page.press(`Use the first ${room} tokens`);
    expect(await page.text('#document-chip')).to.equal(`book.txt the first ${room} of ${all} tokens Remove`);
    expect(await gauge(page)).to.match(/^2,0\d\d of 2,048 tokens/);

    await page.press('Remove');
    await page.page.locator('#document-paste summary').click();
    await page.page.fill('#document-text', 'It rains in the hills.');
    await page.press('Use this text');
    await page.waitForText('#document-tokens', 'tokens');
    expect(await page.text('#document-chip')).to.match(/^Pasted text \d+ tokens/);
  });

  it('answers side by side, with what sparse attention kept, and goes on from its answer', async () => {
    const page = await openTiny({contextLength: 3072, template: TEMPLATE});
    await page.page.fill('#chat-temperature', '0');
    await page.page.check('input[value=both]');
    expect(await page.text('#attention-note')).to.match(/sparse one first.*from about 1,798 tokens on \(an estimate\)/);
    await takeDocument(page, 'story.txt', book.slice(3000, 11_500));
    await send(page, 'Who is it?', 2);
    const [sparse, exact] = [await page.text('.reply.pbs'), await page.text('.reply.exact')];
    expect(sparse).to.match(/^PBS attention .*[1-9]\d tokens of prompt read \d+% of the blocks kept/);
    expect(exact).to.match(/^Exact attention .*tokens of prompt read [\d.]+ tokens a second/);
    const second = await send(page, 'And then?', 2);
    expect(second.match(/of [\d,]+ tokens of prompt were still there/g)).to.have.length(2);
    await page.waitForText('#attention-note', 'to be read, exactly on both sides');
    const columns = () =>
      page.page
        .locator('.answer-message:last-child .reply')
        .evaluateAll((cards) => cards.map((card) => Math.round(card.getBoundingClientRect().x)));
    expect(new Set(await columns()).size).to.equal(2);
    await page.page.setViewportSize({width: 360, height: 740});
    expect(new Set(await columns()).size, 'on a phone').to.equal(1);
  });

  it('stops a download, goes on with it, lists what is kept, and deletes it', async () => {
    const hub = await HubServer.open();
    try {
      const bytes = readFileSync(join(root, 'test/runner/gguf/valid.gguf'));
      const file = {bytes, pauseMs: 100, pieceBytes: 4096};
      hub.files.set('files/tiny.gguf', file);
      const page = await open();
      await page.page.selectOption('#model', 'address');
      await page.page.fill('#model-address', `${hub.url}/files/tiny.gguf`);
      await page.press('Load');
      await page.waitForText('#progress-text', 'MB read');
      await page.press('Stop loading');
      await page.waitForText('#status', 'Loading was stopped.');
      await page.waitForText('#stopped-load-words', 'of it are kept');
      expect(await page.text('#model-info'), 'the one before').to.include('8 layers');
      await page.page.locator('#storage summary').click();
      expect(await page.text('#storage-list')).to.match(/tiny\.gguf 0\.0 MB, not whole yet Go on Delete$/);
      file.pauseMs = 0;
      await page.page.click('#resume-load');
      await page.waitForText('#model-info', 'LlamaForCausalLM: 0.0');
      expect(hub.requests.at(-1)!.range).to.match(/^bytes=[1-9]\d*-$/);
      expect(await page.page.isVisible('#stopped-load')).to.equal(false);
      await page.waitForText('#storage-list', '0.1 MB');
      expect(await page.text('#storage-summary')).to.equal('1, 0.1 MB');
      await page.page.getByRole('button', {name: /^Delete /}).click();
      await page.waitForText('#storage-summary', 'none');
      expect(await page.text('#storage-note')).to.match(/tiny\.gguf is deleted\.$/);

      // Whoever wants another model meanwhile does not wait for this one.
      file.pauseMs = 2000;
      await page.page.selectOption('#model', 'address');
      await page.press('Load');
      await page.waitForText('#progress-text', 'MB read');
      await page.page.selectOption('#model', 'bundled');
      await page.waitForText('#model-info', '8 layers', 10_000);
      expect(await page.page.isVisible('#stopped-load')).to.equal(false);
    } finally {
      hub.close();
    }
  });

  it('keeps what was read of a document, starts from it after a reload, and deletes it', async () => {
    const files = tinyCheckpoint(folder, {contextLength: 2048, template: TEMPLATE});
    const page = await open();
    await takeModel(page, files);
    expect(await page.page.isVisible('#keep')).to.equal(false);
    const take = () => takeDocument(page, 'notes.md', book.slice(3000, 5000));
    await take();
    expect(await page.page.isChecked('#keep')).to.equal(false);
    expect(await page.text('#keep-part')).to.match(
      /^Keep what was read in this browser, about 0\.1 MB Opened another day/,
    );
    // By keyboard.
    await page.page.focus('#document-remove');
    await page.page.keyboard.press('Tab');
    await page.page.keyboard.press('Space');
    const first = await send(page, 'Who is it?');
    expect(first).to.match(/[1-9]\d* tokens of prompt read .*what was read is kept in this browser, 0\.\d MB$/);
    expect(await send(page, 'And then?')).not.to.include('kept in this browser');

    await page.page.reload();
    await page.ready();
    await takeModel(page, files);
    await take();
    expect(await page.page.isChecked('#keep')).to.equal(false);
    await page.page.fill('#message', 'Where is it?');
    await gauge(page);
    expect(Number(/Now (\d+) tokens are to be read/.exec(await page.text('#attention-note'))![1])).to.be.lessThan(20);
    const second = await send(page, 'Where is it?');
    const [, stored, all] = /([\d,]+) of ([\d,]+) tokens of prompt came from this browser's storage/.exec(second)!;
    expect(Number(all) - Number(stored)).to.be.within(1, 20);
    expect(await send(page, 'And then?')).to.include('tokens of prompt were still there');

    await page.page.locator('#storage summary').click();
    expect(await page.text('#storage-list')).to.match(
      /^what was read of notes\.md, by model\.safetensors \(sparse attention\) 0\.\d MB Delete$/,
    );
    await page.page.check('#keep');
    await page.page.getByRole('button', {name: /^Delete what was read of notes\.md/}).click();
    await page.waitForText('#storage-summary', 'none');
    expect(await page.page.isChecked('#keep'), 'it does not come again').to.equal(false);
    await page.press('Clear');
    expect(await send(page, 'Where is it?')).to.include(`${all} tokens of prompt read`);
    await page.page.setViewportSize({width: 360, height: 740});
    expect(await page.page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).to.be.at.most(0);
  });

  it('does not offer to keep anything where the browser keeps no files', async () => {
    const refuse = "navigator.storage.getDirectory = () => Promise.reject(new DOMException('no', 'SecurityError'));";
    const page = await open('backend=cpu', refuse);
    await takeDocument(page, 'notes.md', book.slice(3000, 4000));
    expect(await page.page.isVisible('#document-chip')).to.equal(true);
    expect(await page.page.isVisible('#keep')).to.equal(false);
  });

  it('opens the view that the address says, and says what the built-in model is for', async () => {
    const page = await open('backend=cpu&length=512');
    expect(await page.page.isVisible('#ask')).to.equal(true);
    expect(await page.page.isVisible('#composer')).to.equal(false);
    await page.page.getByRole('tab', {name: 'Chat'}).click();
    await page.page.waitForSelector('#composer', {state: 'visible'});
    expect(page.page.url()).to.match(/length=512#chat$/);
    expect(await page.text('#plain-note')).to.include('only continues text');
    await page.page.goBack();
    await page.page.waitForSelector('#ask', {state: 'visible'});
    expect(await page.text('#fact-state #status')).to.equal('Ready.');
    await page.page.selectOption('#model', {index: 1});
    expect(await page.text('#model-known-part')).to.match(
      /^SmolLM2 135M Instruct: 105 MB to download, once; Apache-2\.0; about 917 MB of memory with 8,192 tokens of context\. Download and load$/,
    );
  });

  it('can be used by keyboard alone, on a phone', async () => {
    const page = await openTiny();
    const {keyboard} = page.page;
    await page.page.setViewportSize({width: 360, height: 740});
    await page.page.focus('#chat-tab');
    await keyboard.press('ArrowRight');
    expect(await page.page.locator(':focus').getAttribute('id')).to.equal('fact-tab');
    await page.page.waitForSelector('#ask', {state: 'visible'});
    const overflow = () => page.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(await overflow()).to.be.at.most(0);
    await keyboard.press('ArrowLeft');
    await page.page.waitForSelector('#composer');
    expect(await overflow()).to.be.at.most(0);
    for (let tabs = 0; tabs < 10 && (await page.page.locator(':focus').getAttribute('id')) !== 'message'; ++tabs) {
      await keyboard.press('Tab');
    }
    await keyboard.type('Who?');
    await keyboard.press('Shift+Enter');
    await keyboard.type('And where?');
    await keyboard.press('Enter');
    await answered(page, 1);
    expect(await page.page.locator('.message.user .written').textContent()).to.equal('Who?\nAnd where?');
    expect(await page.page.locator(':focus').getAttribute('id')).to.equal('message');
    await page.page.fill('#chat-max-tokens', '1024');
    await page.page.focus('#message');
    await keyboard.type('All.');
    await keyboard.press('Enter');
    await page.page.waitForFunction(() => document.querySelectorAll('.reply .written:not(.waiting)').length === 2);
    await page.page.waitForTimeout(500);
    await keyboard.press('Escape');
    expect(await answered(page, 2)).to.include('stopped after');
    expect(await overflow()).to.be.at.most(0);
  });

  it('names every control, uses no id twice, and refers to none that is not there', async () => {
    const page = await open();
    const faults = await page.page.evaluate(() => {
      const all = [...document.querySelectorAll('[id]')].map(({id}) => id);
      const found = all.filter((id, index) => all.indexOf(id) !== index).map((id) => `twice: ${id}`);
      for (const attribute of ['for', 'aria-labelledby', 'aria-describedby', 'aria-controls']) {
        for (const element of document.querySelectorAll(`[${attribute}]`)) {
          const missing = element
            .getAttribute(attribute)!
            .split(' ')
            .filter((id) => !document.getElementById(id));
          found.push(...missing.map((id) => `${attribute}: no ${id}`));
        }
      }
      const controls = document.querySelectorAll<HTMLInputElement>('input, select, textarea, button, meter, progress');
      for (const control of controls) {
        const label = control.labels?.length || control.getAttribute('aria-label') || control.textContent?.trim();
        // Its words come with what it is for.
        if (!label && control.id !== 'document-cut') found.push(`no name: ${control.id || control.outerHTML}`);
      }
      return found;
    });
    expect(faults).to.deep.equal([]);
  });
});
