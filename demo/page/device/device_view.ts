import {MEASURED_LENGTHS, type DeviceResult} from '../../engine/device_protocol';
import type {Machine, MeasureEvent} from '../../engine/protocol';
import type {AttentionCalibration} from '../../../src/index';
import {byId, element} from '../dom';
import {RunButton, type DeskUser, type EngineDesk} from '../engine_desk';
import {formatTokens} from '../format';
import {loadCharts} from '../load_charts';
import {showLegend, showTable} from '../numbers';
import {onLookChange} from '../redraw';
import {forgetCalibrations, storeCalibration} from './calibrations';
import {readResultLink, writeResultLink} from './device_link';
import {describeDevice, describeFeatures, describeLongest, linesOf, markdownOf, tableOf} from './device_words';

const AXES = {length: 'Length, in tokens', time: 'Time of a call'};

/** Longest that is measured unasked: seconds on a graphics card, half a minute in software. */
const FIRST_LONGEST = {graphics: 8192, software: 512};

/** Measures this device, shows what came of it, here or where a link comes from, and keeps its calibration. */
export class DeviceView implements DeskUser {
  private readonly measureButton = byId<HTMLButtonElement>('measure');
  private readonly button: RunButton;
  private readonly longest = byId<HTMLSelectElement>('device-longest');
  private readonly forgetButton = byId<HTMLButtonElement>('forget-calibration');
  private readonly chart = byId('device-chart');
  private readonly copied = byId('device-copied');
  private readonly copyText = byId<HTMLTextAreaElement>('device-copy-text');
  private result?: DeviceResult;
  private calibration?: AttentionCalibration;

  constructor(private readonly desk: EngineDesk) {
    this.button = new RunButton(this.measureButton, desk, 'device', 'Measure');
    this.longest.replaceChildren(
      ...MEASURED_LENGTHS.map((length) => element('option', {value: String(length)}, formatTokens(length))),
    );
    byId('device-form').addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.button.stops) desk.stop();
      else if (desk.activity === 'idle') void this.measure();
    });
    this.forgetButton.addEventListener('click', () => void this.forget());
    const copies: Array<[string, string, (result: DeviceResult) => string]> = [
      ['copy-json', 'JSON', (result) => JSON.stringify({...result, calibration: this.calibration}, undefined, 1)],
      ['copy-markdown', 'Markdown', markdownOf],
      ['copy-link', 'link', (result) => location.href.split('#')[0] + writeResultLink(result)],
    ];
    for (const [id, what, write] of copies) {
      byId(id).addEventListener('click', () => {
        if (this.result) void this.copy(what, write(this.result));
      });
    }
    onLookChange(() => void this.draw());
    addEventListener('hashchange', () => this.readLink());
    this.readLink();
  }

  focus(): void {
    this.measureButton.focus();
  }

  /** A chart that was drawn while it was hidden has no width. */
  onShow(): void {
    void this.draw();
  }

  onMachine({software, calibrated}: Machine): void {
    this.longest.value = String(FIRST_LONGEST[software ? 'software' : 'graphics']);
    this.showCalibrated(calibrated);
  }

  onActivity(): void {
    this.button.show();
    byId('device-form').setAttribute('aria-busy', String(this.desk.activity !== 'idle'));
  }

  private async measure(): Promise<void> {
    const {desk} = this;
    if (!(await desk.prepareAll())) return;
    const request = {longest: Number(this.longest.value)};
    const work = async () => {
      const result = await desk.host.follow<MeasureEvent, DeviceResult>(
        (engine, onEvent) => engine.measure(request, onEvent),
        (event) => this.showEvent(event),
      );
      this.show(result, false);
      return 'Measured.';
    };
    // What is measured so far stays.
    await desk.run('device', work, () => {});
  }

  private showEvent(event: MeasureEvent): void {
    if (event.type === 'calibration') {
      const {calibration, sparseFrom} = event;
      this.calibration = calibration;
      this.takeCalibration(calibration.date, sparseFrom, storeCalibration(calibration));
      return;
    }
    if (this.desk.activity !== 'running') return;
    if (event.type === 'result') {
      this.show(event.result, false);
      return;
    }
    const {words, done, steps} = event.progress;
    this.desk.progress.show(words, `Measuring: ${words}…`, done / steps);
  }

  private async forget(): Promise<void> {
    forgetCalibrations();
    try {
      this.takeCalibration(undefined, await this.desk.host.call((engine) => engine.forgetCalibration()));
      this.measureButton.focus();
    } catch (error) {
      this.desk.report(error as Error);
    }
  }

  /** What the other views say of the device goes by it, too. */
  private takeCalibration(calibrated: string | undefined, sparseFrom: number | undefined, isStored?: boolean): void {
    const {session} = this.desk;
    if (session.machine) session.machine = {...session.machine, calibrated};
    if (session.model) session.model = {...session.model, sparseFrom};
    this.showCalibrated(calibrated, isStored);
  }

  private showCalibrated(date: string | undefined, isStored = true): void {
    byId('device-calibration').textContent =
      date === undefined
        ? 'Automatic choices go by the class of the device: it has not been measured here.'
        : `Automatic choices go by the measurement of ${date.slice(0, 10)}${isStored ? ', kept in this browser' : ', until the page is closed'}.`;
    this.forgetButton.hidden = date === undefined;
  }

  /** A result in the address is shown, and nothing else is done with it. */
  private readLink(): void {
    const refused = byId('device-refused');
    refused.hidden = true;
    try {
      const linked = readResultLink(location.hash);
      if (linked === undefined) return;
      this.calibration = undefined;
      this.show(linked, true);
    } catch (error) {
      refused.textContent = `The result in the address cannot be shown: ${(error as Error).message}.`;
      refused.hidden = false;
    }
  }

  private show(result: DeviceResult, isLinked: boolean): void {
    this.result = result;
    // Another than that of the address would come back with the page.
    if (!isLinked && location.hash.startsWith('#device=')) history.replaceState(null, '', '#device');
    byId('device-result').hidden = result.lengths.length === 0;
    byId('device-shared').hidden = !isLinked;
    byId('device-about').textContent = describeDevice(result);
    byId('device-features').textContent = describeFeatures(result);
    byId('device-headline').textContent = describeLongest(result);
    const {head, rows} = tableOf(result);
    showTable(byId('device-table'), 'Time of a call by length', head, rows);
    this.copied.textContent = '';
    this.copyText.hidden = true;
    void this.draw();
  }

  private async draw(): Promise<void> {
    if (this.result === undefined || this.chart.clientWidth === 0) return;
    const {lineSwatch, timeChart} = await loadCharts();
    const lines = linesOf(this.result).filter(({points}) => points.length > 0);
    if (lines.length === 0 || this.chart.clientWidth === 0) return;
    const longest = this.result.lengths.at(-1)!.length;
    const lengths = MEASURED_LENGTHS.filter((length) => length <= longest);
    this.chart.replaceChildren(timeChart(lines, this.chart.clientWidth, {...AXES, lengths}));
    showLegend(byId('device-legend'), lines, lineSwatch);
  }

  private async copy(what: string, text: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      this.copied.textContent = `Copied as ${what}.`;
      this.copyText.hidden = true;
    } catch {
      // Refused, or the page is not on https: by hand, then.
      this.copied.textContent = 'This browser does not let the page copy: take it from here.';
      this.copyText.value = text;
      this.copyText.hidden = false;
      this.copyText.select();
    }
  }
}
