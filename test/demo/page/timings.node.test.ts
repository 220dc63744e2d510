import {expect} from 'chai';
import type {Answer, Machine} from '../../../demo/engine/protocol';
import {defaultSettings, runRequest, type Settings} from '../../../demo/page/settings';
import {latestRuns, seriesOf, timingOf} from '../../../demo/page/timings';

const machine: Machine = {
  backend: 'webgpu',
  adapter: 'gpu',
  software: false,
  features: [],
  reason: '',
  float16: 'shader',
};

function timing(length: number, exactMs: number, pbsMs: number, part: Partial<Settings> = {}, on = machine) {
  const answer = (firstTokenMs: number): Answer => ({text: '', firstTokenMs, tokens: 1});
  const request = runRequest({...defaultSettings(), ...part}, length, on);
  return timingOf(request, {exact: answer(exactMs), pbs: answer(pbsMs)}, on, 'small');
}

describe('seriesOf', () => {
  it('makes one line for each attention, by length, the latest run of a length counting', () => {
    const series = seriesOf([timing(4096, 40, 20), timing(512, 5, 6), timing(4096, 44, 22)]);
    expect(series).to.deep.equal([
      {
        attention: 'exact',
        label: 'Exact',
        points: [
          {length: 512, ms: 5},
          {length: 4096, ms: 44},
        ],
      },
      {
        attention: 'pbs',
        label: 'PBS, τ 0.9',
        points: [
          {length: 512, ms: 6},
          {length: 4096, ms: 22},
        ],
      },
    ]);
  });

  it('parts PBS attention by its options, which exact attention does not have', () => {
    const series = seriesOf([
      timing(512, 5, 6),
      timing(1024, 9, 7, {threshold: 0.8}),
      timing(512, 5, 4, {permute: false}),
    ]);
    expect(series.map(({label}) => label)).to.deep.equal([
      'Exact',
      'PBS, τ 0.9, permuted',
      'PBS, τ 0.8, permuted',
      'PBS, τ 0.9, not permuted',
    ]);
    expect(series[0].points).to.have.lengthOf(2);
  });

  it('parts both by machine and precision, and says what differs', () => {
    const cpu: Machine = {...machine, backend: 'cpu', adapter: 'none'};
    const labels = seriesOf([
      timing(512, 5, 6),
      timing(512, 500, 600, {}, cpu),
      timing(512, 4, 5, {precision: 'float16'}),
    ])
      .filter(({attention}) => attention === 'exact')
      .map(({label}) => label);
    expect(labels).to.deep.equal([
      'Exact, WebGPU (gpu), float32',
      'Exact, CPU (none), float32',
      'Exact, WebGPU (gpu), float16',
    ]);
  });

  it('is empty before the first run', () => {
    expect(seriesOf([])).to.deep.equal([]);
  });
});

describe('latestRuns', () => {
  it('has a row for each length and settings, by length', () => {
    const rows = latestRuns([
      timing(1024, 9, 7),
      timing(512, 5, 6),
      timing(1024, 8, 6),
      timing(512, 5, 4, {threshold: 0.8}),
    ]);
    expect(
      rows.map(({length, firstTokenMs, label}) => [length, firstTokenMs.exact, firstTokenMs.pbs, label]),
    ).to.deep.equal([
      [512, 5, 6, 'PBS, τ 0.9'],
      [512, 5, 4, 'PBS, τ 0.8'],
      [1024, 8, 6, 'PBS, τ 0.9'],
    ]);
  });
});
