import {expect} from 'chai';
import type {Browser, Page} from 'playwright-core';
import type {DemoServer} from './demo_server';

const LOAD_MS = 60_000;

/** The demo's page as a person uses it. */
export class DemoPage {
  /** Exceptions that nobody caught, and what the page's policy refused. */
  readonly errors: string[] = [];

  private constructor(readonly page: Page) {
    page.on('pageerror', (error) => this.errors.push(error.message));
    page.on('console', (message) => {
      if (message.text().includes('Content Security Policy')) this.errors.push(message.text());
    });
  }

  /**
   * @param path of the page on the server.
   * @param query the settings in the address.
   * @param workerPrelude runs in the worker before anything else.
   */
  static async open(
    browser: Browser,
    server: DemoServer,
    path: string,
    query: string,
    workerPrelude = '',
  ): Promise<DemoPage> {
    server.workerPrelude = workerPrelude;
    const page = await browser.newPage({viewport: {width: 1100, height: 900}});
    const demo = new DemoPage(page);
    await page.goto(`${server.url}${path}?${query}`);
    return demo;
  }

  async ready(): Promise<void> {
    await this.waitForText('#status', 'Ready.', LOAD_MS);
  }

  /** Asks, and waits for what comes of it. `meanwhile` is done as soon as the button was pressed. */
  async ask(timeout: number, meanwhile?: () => Promise<unknown>): Promise<string> {
    // Watched from the page: a short run can be over before a busy machine looks for it.
    await this.page.evaluate(() => {
      const button = document.querySelector<HTMLElement>('#ask')!;
      delete button.dataset.ran;
      new MutationObserver(() => {
        if (button.textContent !== 'Ask') button.dataset.ran = 'yes';
      }).observe(button, {childList: true, characterData: true, subtree: true});
    });
    await this.page.click('#ask');
    await meanwhile?.();
    await this.page.waitForSelector('#ask[data-ran]', {timeout: LOAD_MS});
    return this.finished(timeout);
  }

  /** Waits until the run is over; the failure, or how it went. */
  async finished(timeout: number): Promise<string> {
    await this.page.waitForFunction(() => document.querySelector('#ask')?.textContent === 'Ask', undefined, {timeout});
    return (await this.text('#failure')) || (await this.text('#status'));
  }

  async text(selector: string): Promise<string> {
    return (await this.page.locator(selector).innerText()).replace(/\s+/g, ' ').trim();
  }

  async waitForText(selector: string, part: string, timeout = 30_000): Promise<void> {
    await this.page
      .waitForFunction(
        ([where, what]) => document.querySelector(where)?.textContent?.includes(what),
        [selector, part] as const,
        {timeout},
      )
      .catch(async (error: Error) => {
        throw new Error(`"${part}" did not come to ${selector}: ${await this.text('body')}`, {cause: error});
      });
  }

  /** What is shown of a failure, and that nothing else went wrong meanwhile. */
  async failure(title: string, timeout = 30_000): Promise<string> {
    await this.waitForText('#failure h3', title, timeout);
    return this.text('#failure');
  }

  async press(name: string): Promise<void> {
    await this.page.getByRole('button', {name, exact: true}).click();
  }

  /** Sends a word to the worker's prelude. */
  async tellWorker(word: string): Promise<void> {
    await this.page.evaluate((data) => {
      const channel = new BroadcastChannel('test');
      channel.postMessage(data);
      channel.close();
    }, word);
  }

  /** To be called last. */
  async close(): Promise<void> {
    await this.page.close();
    expect(this.errors, 'exceptions that nobody caught, and what the page’s policy refused').to.deep.equal([]);
  }
}
