import {byId} from './dom';
import {formatCount, formatDuration} from './format';
import {loadCharts} from './load_charts';
import {showLegend, showTable} from './numbers';
import {onLookChange} from './redraw';
import {LENGTHS} from './settings';
import {latestRuns, seriesOf, type Timing} from './timings';

const AXES = {length: 'Context length, in tokens', time: 'Time to first token', lengths: LENGTHS};

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
    this.chart.replaceChildren(timeChart(all, this.chart.clientWidth, AXES));
    showLegend(byId('times-legend'), all, lineSwatch);
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
    showTable(byId('times-table'), 'Time to first token by context length', head, rows);
  }
}
