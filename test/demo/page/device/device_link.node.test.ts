import {expect} from 'chai';
import {MEASURED_LENGTHS, METHODS, type DeviceResult} from '../../../../demo/engine/device_protocol';
import {checkedResult, readResultLink, writeResultLink} from '../../../../demo/page/device/device_link';
import {describeDevice, describeLongest, linesOf, markdownOf, tableOf} from '../../../../demo/page/device/device_words';

const result: DeviceResult = {
  version: 1,
  date: '2026-11-29T12:00:00.000Z',
  backend: 'webgpu',
  adapter: 'nvidia hopper – H200 <b>|',
  features: ['shader-f16', 'subgroups'],
  heads: 8,
  headDim: 64,
  threshold: 0.9,
  lengths: [
    {length: 512, ms: {exact: 0.1, sparse: 0.2, composed: 0.5}, density: 0.8, auto: 'exact'},
    {length: 8192, ms: {exact: 6, sparse: 2}, density: 0.31, auto: 'sparse'},
  ],
};

const encode = (value: unknown) => `#device=${Buffer.from(JSON.stringify(value)).toString('base64url')}`;

describe('a link to a measured device', () => {
  it('gives the result again', () => {
    const link = writeResultLink(result);
    expect(link).to.match(/^#device=[\w-]+$/);
    expect(readResultLink(link)).to.deep.equal(result);
    const ms = Object.fromEntries(METHODS.map((method) => [method, 12.345678901234567]));
    const lengths = MEASURED_LENGTHS.map((length) => ({length, ms, density: 1 / 3, auto: 'exact' as const}));
    const features = Array.from({length: 30}, (_, i) => `some-feature-of-a-device-${i}`);
    const longest = {...result, adapter: 'a'.repeat(300), features, lengths};
    expect(readResultLink(writeResultLink(longest)), 'as long as it gets').to.deep.equal(longest);
  });

  it('is none where the fragment is of something else', () => {
    for (const hash of ['', '#device', '#chat', '#deviceX=1']) expect(readResultLink(hash)).to.equal(undefined);
  });

  it('keeps nothing that a result does not have', () => {
    const [length] = result.lengths;
    const more = {...result, calibration: {}, lengths: [{...length, more: 1, ms: {...length.ms, other: 1}}]};
    expect(checkedResult(more)).to.deep.equal({...result, lengths: [length]});
    const polluted = JSON.parse(`{"__proto__": {"x": 1}, ${JSON.stringify(result).slice(1)}`) as unknown;
    expect(checkedResult(polluted)).to.deep.equal(result).and.not.have.property('x');
  });

  it('says what is wrong with others', () => {
    const [first, second] = result.lengths;
    const refused: Array<[string, string]> = [
      ['#device=', 'it is not base64url'],
      ['#device=%7B%7D', 'it is not base64url'],
      ['#device=AAAA', 'it cannot be decoded'],
      ['#device=a', 'it cannot be decoded'],
      [`#device=${'A'.repeat(8001)}`, 'it has 8001 characters; accepted: at most 8000'],
      [encode(null), 'it is null; accepted: an object'],
      [encode('x'), 'it is "x"; accepted: an object'],
      [encode({...result, version: 2}), 'version is 2; accepted: 1'],
      [encode({...result, date: 'x'.repeat(1000)}), 'date is "xxx'],
      [encode({...result, backend: 'wasm'}), 'backend is "wasm"; accepted: webgpu, webgl, cpu'],
      [encode({...result, backend: '__proto__'}), 'backend is "__proto__"'],
      [encode({...result, adapter: 'a\u202eb'}), 'adapter is "ab"; accepted: at most 300 printed characters'],
      [encode({...result, adapter: 'a'.repeat(301)}), 'adapter is "aaa'],
      [encode({...result, features: {length: 1}}), 'features is [object Object]; accepted: a list of at most 64'],
      [encode({...result, features: ['<img src=x>']}), 'features has "<img src=x>"'],
      [encode({...result, heads: 1e9}), 'heads is 1000000000; accepted: a number from 1 to 128'],
      [encode({...result, threshold: '0.9'}), 'threshold is "0.9"'],
      [encode({...result, lengths: [second, first]}), 'length is 512; accepted: 256, 512'],
      [encode({...result, lengths: [{...first, length: 513}]}), 'length is 513'],
      [encode({...result, lengths: Array(8).fill(first)}), 'lengths is a list; accepted: a list of at most 7'],
      [encode({...result, lengths: [{...first, ms: {exact: -1}}]}), 'exact is -1; accepted: a number from'],
      [encode({...result, lengths: [{...first, ms: {exact: null}}]}), 'exact is null'],
      [encode({...result, lengths: [{...first, density: 2}]}), 'density is 2; accepted: a number from 0 to 1'],
      [encode({...result, lengths: [{...first, auto: 'fast'}]}), 'auto is "fast"; accepted: exact, sparse'],
    ];
    for (const [hash, message] of refused) {
      expect(() => readResultLink(hash), hash.slice(0, 80))
        .to.throw()
        .with.property('message')
        .that.includes(message)
        .and.has.length.below(200);
    }
  });
});

describe('words of a measured device', () => {
  it('name the device and what is fastest', () => {
    expect(describeDevice(result)).to.equal(
      'WebGPU, nvidia hopper – H200 <b>|. 8 heads of 64, causal, τ 0.9; a call, median; 2026-11-29.',
    );
    expect(describeLongest(result)).to.equal(
      'At 8,192 tokens sparse attention is 3.00 times as fast as exact (2.00 ms and 6.00 ms).',
    );
    const slower = {...result, lengths: [result.lengths[0]]};
    expect(describeLongest(slower)).to.include(
      'is slower: 2.00 times as long as exact (200 ms and 100 ms)'.slice(0, 40),
    );
    expect(describeLongest({...result, lengths: []})).to.equal('');
  });

  it('make lines, a table and Markdown', () => {
    expect(linesOf(result).map(({attention, label, points}) => [attention, label, points.length])).to.deep.equal([
      ['exact', 'Exact', 2],
      ['pbs', 'Sparse (PBS)', 2],
      ['composed', 'TensorFlow.js’s own', 1],
    ]);
    expect(tableOf(result).rows[1]).to.deep.equal(['8,192', '6.00 ms', '2.00 ms', '–', '31%', 'Sparse (PBS)']);
    const markdown = markdownOf(result);
    expect(markdown).to.include('| 8,192 | 6.00 ms | 2.00 ms | – | 31% | Sparse (PBS) |');
    expect(markdown).to.include('Features: shader-f16, subgroups.');
  });
});
