import {expect} from 'chai';
import {report} from '../../bench/report/report';
import {summaryOf} from '../../bench/report/summary';
import type {Result, Run} from '../../bench/results';

const ms = (median: number) => ({median, low: median, high: median, timings: 12, calls: 1});

const run = (date: string, results: Result[]): Run => ({
  date: `${date}:00.000Z`,
  command: `bench of ${date}`,
  host: 'Node',
  adapter: `the GPU of ${date}`,
  features: [],
  versions: {},
  results,
  skipped: [],
  errors: [],
});

const exact = (length: number, median: number): Result => ({
  kind: 'exact',
  shape: '8x64',
  length,
  method: 'ours-f16',
  call: ms(median),
});
const sinks = (time: number): Result => ({
  kind: 'form',
  shape: '8x64',
  length: 16_384,
  method: 'ours-f32',
  form: 'sinks',
  call: ms(time),
  plain: ms(10),
});
const decode: Result = {
  kind: 'decode',
  shape: '8x64',
  length: 1024,
  rows: 1,
  call: ms(0.125),
  bytes: 5e5,
  streamed: 8e6,
};

describe('report of the benchmark', () => {
  const earlier = [run('2026-11-01T08:00', [exact(4096, 3), exact(8192, 7)]), run('2026-11-02T08:00', [decode])];
  const later = run('2026-11-03T08:00', [sinks(10.5), exact(4096, 2)]);

  it('keeps sections that a run does not have, and replaces the others whole', () => {
    const first = report(earlier);
    const text = report([later], first);
    expect(text.match(/^## .*/gm)).to.deep.equal([
      '## Exact attention, causal',
      '## Forms of attention',
      '## Decoding',
    ]);
    const [, exactSection, forms, decoding] = text.split(/^## /m);
    expect(exactSection)
      .to.contain('bench of 2026-11-03')
      .and.match(/\| 4,096 +\| 2\.00/);
    expect(exactSection).to.not.match(/8,192|2026-11-01/);
    expect(forms).to.match(/\| sinks +\| 10\.5 \S+ \| 10\.0 \S+ \| 1\.050 +\| 1\.030 \*\*over\*\* \|/);
    expect(decoding.trim()).to.equal(first.split(/^## /m)[2].trim());
    // Nothing changes where nothing was measured.
    expect(report([later], text)).to.equal(text);
  });

  it('keeps figures that a run does not have, each with where and when it was measured', () => {
    const before = summaryOf([run('2026-11-01T08:00', [exact(4096, 3), sinks(10.2)])]);
    const summary = summaryOf([run('2026-11-03T08:00', [exact(8192, 7)])], before)!;
    expect(summary.ms.exactFloat16).to.deep.equal({8192: 7});
    expect(summary.toPlain).to.deep.equal({sinksFloat32: {16384: 1.02}});
    expect(summary.measured['ms.exactFloat16'].command).to.equal('bench of 2026-11-03T08:00');
    expect(summary.date).to.equal('2026-11-03T08:00:00.000Z');
    expect(summary.measured['toPlain.sinksFloat32'].device).to.equal('the GPU of 2026-11-01T08:00, Node');
  });
});
