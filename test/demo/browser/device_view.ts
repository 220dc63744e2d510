import {expect} from 'chai';
import type {AttentionCalibration} from '../../../src/index';
import type {DeviceResult} from '../../../demo/engine/device_protocol';
import {writeResultLink} from '../../../demo/page/device/device_link';
import type {DemoPage} from './demo_page';

const MEASURE_MS = 120_000;
const KEY = 'attention-calibrations';

/** Tests of the view that measures the device, on pages that `open` opens at an address. */
export function testDeviceView(
  open: (query: string) => Promise<DemoPage>,
  photograph: (shown: DemoPage, name: string) => Promise<void>,
): void {
  it('measures the device, stops, and copies what came of it', async () => {
    const shown = await open('backend=cpu#device');
    const {page} = shown;
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await shown.ready();
    expect(await shown.text('#device-calibration')).to.include('by the class of the device');
    await page.selectOption('#device-longest', '16384');
    await page.click('#measure');
    await shown.waitForText('#progress-text', 'tokens, exact', MEASURE_MS);
    // A second click at once would be half of a double-click.
    await page.waitForTimeout(500);
    await page.click('#measure');
    await shown.waitForText('#status', 'Stopped.', MEASURE_MS);
    expect(await shown.text('#device-calibration'), 'calibrated before').to.include('by the measurement of');
    await shown.press('Forget the measurement');
    await shown.waitForText('#device-calibration', 'by the class of the device');
    expect(await page.evaluate((key) => localStorage.getItem(key), KEY)).to.equal(null);

    await page.selectOption('#device-longest', '256');
    await page.click('#measure');
    await shown.waitForText('#status', 'Measured.', MEASURE_MS);
    expect(await shown.text('#device-calibration')).to.match(
      /by the measurement of \d{4}-\d\d-\d\d, kept in this browser/,
    );
    expect(await shown.text('#device-table')).to.match(/Tokens Exact Sparse .* 256 [\d.]+ m?s/);
    await page.waitForSelector('#device-chart svg[role=img][aria-label]');
    await photograph(shown, 'device');

    const copied = async (button: string) => {
      await page.click(button);
      await shown.waitForText('#device-copied', 'Copied as');
      return page.evaluate(() => navigator.clipboard.readText());
    };
    const json = JSON.parse(await copied('#copy-json')) as DeviceResult & {calibration: AttentionCalibration};
    expect(json).to.include({version: 1, backend: 'cpu'});
    expect(json.lengths.map(({length}) => length)).to.deep.equal([256]);
    const stored = await page.evaluate((key) => localStorage.getItem(key), KEY);
    expect(JSON.parse(stored!)).to.deep.equal([json.calibration]);
    expect(await copied('#copy-markdown')).to.include('| Tokens | Exact |');
    expect(await copied('#copy-link')).to.match(/backend=cpu#device=[\w-]+$/);
  });

  it('goes by the stored calibration of the device, and by none of another', async () => {
    const shown = await open('backend=cpu#device');
    const {page} = shown;
    await shown.ready();
    // As the page stores it.
    const stored: AttentionCalibration = {
      version: 1,
      backend: 'cpu',
      adapter: 'JavaScript',
      date: '2026-11-29T12:00:00.000Z',
      constants: {
        exactLaunch: 1e-3,
        sparseLaunch: 1e-3,
        sampleMultiplyAdd: 1e-12,
        float32: {multiplyAdds: 1e5, sparseFactor: 1},
      },
    };
    const store = (calibration: AttentionCalibration) =>
      page.evaluate(([key, text]) => localStorage.setItem(key, text), [KEY, JSON.stringify([calibration])] as const);
    const noteAfterReload = async () => {
      await page.goto('about:blank');
      await page.goBack();
      await shown.ready();
      await page.click('#chat-tab');
      await shown.waitForText('#attention-note', 'sparse attention is');
      const note = await shown.text('#attention-note');
      await page.click('#device-tab');
      return note;
    };
    // Days to launch block-sparse attention, and next to nothing.
    await store({...stored, constants: {...stored.constants, sparseLaunch: 1e9}});
    expect(await noteAfterReload()).to.match(/^By the measurement of this device, sparse attention is not expected/);
    await store(stored);
    const measured = await noteAfterReload();
    expect(measured).to.match(/^By the measurement of this device/);
    await store({...stored, adapter: 'another'});
    const byClass = await noteAfterReload();
    expect(byClass).to.match(/^On this class of device/);
    const lengthIn = (note: string) => Number(/from about ([\d,]+) tokens on/.exec(note)![1].replace(',', ''));
    expect(lengthIn(measured)).to.be.below(lengthIn(byClass));
    expect(await shown.text('#device-calibration')).to.include('by the class of the device');
  });

  it('shows the result of a link, and what is wrong with one', async () => {
    const result: DeviceResult = {
      version: 1,
      date: '2026-11-29T12:00:00.000Z',
      backend: 'webgpu',
      adapter: '<img src=x onerror=alert(1)>',
      features: ['subgroups'],
      heads: 8,
      headDim: 64,
      threshold: 0.9,
      lengths: [512, 2048, 8192].map((length, i) => ({
        length,
        ms: {exact: 0.2 * 12 ** i, sparse: 0.3 * 5 ** i, composed: 16 ** i},
        density: 0.8 / (i + 1),
        auto: i === 0 ? 'exact' : 'sparse',
      })),
    };
    const shown = await open(`backend=cpu${writeResultLink(result)}`);
    expect(await shown.text('#device-shared')).to.include('measured elsewhere');
    expect(await shown.text('#device-about')).to.include('<img src=x onerror=alert(1)>');
    expect(await shown.page.locator('#device-table tbody tr').count()).to.equal(3);
    expect(await shown.page.getAttribute('#device-tab', 'aria-selected')).to.equal('true');
    await shown.page.waitForSelector('#device-chart svg');
    await photograph(shown, 'device-linked');
    expect(await shown.page.evaluate((key) => localStorage.getItem(key), KEY)).to.equal(null);
    await shown.page.evaluate(() => (location.hash = '#device=AAAA'));
    await shown.waitForText('#device-refused', 'cannot be shown: it cannot be decoded');
  });
}
