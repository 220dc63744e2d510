import {byId, element} from './dom';
import {formatCount, formatDuration} from './format';
import {loadCharts} from './load_charts';
import {onLookChange} from './redraw';
import {latestRuns, seriesOf, type Timing} from './timings';

/** Chart and table of the times of all runs since the page was opened. */
export class TimesView {
  private readonly timings: Timing[] = [];
  private readonly section = byId('times');
  private readonly chart = byId('times-chart');

  constructor() {
    onLookChange(() => void this.draw());
  }

  add(timing: Timing): void {
    this.timings.push(timing);
    this.section.hidden = false;
    this.showTable();
    void this.draw();
  }

  private async draw(): Promise<void> {
    if (this.timings.length === 0) return;
    const {lineSwatch, timeChart} = await loadCharts();
    const all = seriesOf(this.timings);
    this.chart.replaceChildren(timeChart(all, this.chart.clientWidth));
    byId('times-legend').replaceChildren(
      ...all.map((series) =>
        element('li', {}, element('span', {'aria-hidden': 'true'}, lineSwatch(all, series)), series.label),
      ),
    );
  }

  private showTable(): void {
    const head = ['Tokens', 'Exact', 'PBS', 'Speed-up', 'Settings'];
    const rows = latestRuns(this.timings).map(({length, firstTokenMs: {exact, pbs}, label}) => [
      formatCount(length),
      formatDuration(exact),
      formatDuration(pbs),
      `${(exact / pbs).toFixed(2)} ×`,
      label,
    ]);
    byId('times-table').replaceChildren(
      element('caption', {className: 'visually-hidden'}, 'Time to first token by context length'),
      element('thead', {}, element('tr', {}, ...head.map((words) => element('th', {scope: 'col'}, words)))),
      element(
        'tbody',
        {},
        ...rows.map(([length, ...cells]) =>
          element('tr', {}, element('th', {scope: 'row'}, length), ...cells.map((words) => element('td', {}, words))),
        ),
      ),
    );
  }
}
