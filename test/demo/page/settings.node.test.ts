import {expect} from 'chai';
import fc from 'fast-check';
import {BACKEND_NAMES} from '../../../demo/backend_names';
import {MOST_WRITTEN_TOKENS, type Machine} from '../../../demo/engine/protocol';
import type {PlacedFact} from '../../../demo/fact';
import {BOOK_NAMES} from '../../../demo/page/books';
import {
  BLOCK_SIZES,
  defaultSettings,
  fitLength,
  haveSameSubject,
  LENGTHS,
  MAX_FACTS,
  MAX_SEED,
  offeredLengths,
  readSettings,
  runRequest,
  segmentSizesFor,
  shorterLength,
  writeSettings,
  type Settings,
} from '../../../demo/page/settings';

const hundredths = (min: number, max: number) => fc.integer({min: min * 100, max: max * 100}).map((n) => n / 100);
const word = fc.stringMatching(/^[a-z]{2,20}$/);

const placedFact: fc.Arbitrary<PlacedFact> = fc.record({
  fact: fc.record({adjective: word, noun: word, number: fc.integer({min: 10_000, max: 99_999}).map(String)}),
  depth: hundredths(0, 1),
});

const anySettings: fc.Arbitrary<Settings> = fc
  .record({
    backend: fc.constantFrom('auto' as const, ...BACKEND_NAMES),
    book: fc.constantFrom(...BOOK_NAMES),
    task: fc.constantFrom('find' as const, 'continue' as const),
    pages: fc.integer({min: 0, max: MAX_SEED}),
    facts: fc.uniqueArray(placedFact, {minLength: 1, maxLength: MAX_FACTS, comparator: haveSameSubject}),
    threshold: hundredths(0, 1),
    estimate: fc.constantFrom('sampled' as const, 'pooled' as const),
    permute: fc.boolean(),
    precision: fc.constantFrom('float32' as const, 'float16' as const),
    temperature: hundredths(0, 2),
    topP: hundredths(0.01, 1),
    seed: fc.integer({min: 0, max: MAX_SEED}),
    blockSize: fc.constantFrom(...BLOCK_SIZES),
    keyBlockSize: fc.constantFrom(...BLOCK_SIZES),
  })
  .chain((settings) =>
    fc.record({
      ...Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, fc.constant(value)])),
      asked: fc.nat({max: settings.facts.length - 1}),
      segmentSize: fc.constantFrom(...segmentSizesFor(settings.keyBlockSize)),
    } as {[K in keyof Settings]-?: fc.Arbitrary<Settings[K]>}),
  )
  .chain((settings) =>
    fc
      .record(
        {length: fc.constantFrom(...LENGTHS), maxTokens: fc.integer({min: 1, max: MOST_WRITTEN_TOKENS})},
        {requiredKeys: []},
      )
      .map((chosen) => ({...settings, ...chosen})),
  );

describe('settings in the address', () => {
  it('come back as they were', () => {
    fc.assert(
      fc.property(anySettings, (settings) => {
        const text = writeSettings(settings).toString();
        expect(readSettings(new URLSearchParams(text))).to.deep.equal({settings, ignored: []});
      }),
    );
  });

  it('are those that differ from the defaults, under short names', () => {
    expect(writeSettings(defaultSettings()).toString()).to.equal('');
    const settings = {...defaultSettings(), threshold: 0.8, keyBlockSize: 128, permute: false, length: 2048};
    expect(writeSettings(settings).toString()).to.equal('length=2048&tau=0.8&key-block=128&permute=no');
  });

  it('carry facts as words', () => {
    const {settings, ignored} = readSettings(
      new URLSearchParams('fact=quiet-owl-12345-0.25&fact=red-fox-54321-1&ask=2'),
    );
    expect(ignored).to.deep.equal([]);
    expect(settings.facts).to.deep.equal([
      {fact: {adjective: 'quiet', noun: 'owl', number: '12345'}, depth: 0.25},
      {fact: {adjective: 'red', noun: 'fox', number: '54321'}, depth: 1},
    ]);
    expect(settings.asked).to.equal(1);
  });

  for (const [query, name] of [
    ['backend=metal', 'backend'],
    ['book=ulysses', 'book'],
    ['task=sing', 'task'],
    ['length=700', 'length'],
    ['pages=-1', 'pages'],
    ['tau=1.5', 'tau'],
    ['tau=0.905', 'tau'],
    ['tau=', 'tau'],
    ['block=100', 'block'],
    ['segment=96', 'segment'],
    ['estimate=pool', 'estimate'],
    ['key-block=100', 'key-block'],
    ['key-block=128&segment=64', 'segment'],
    ['permute=maybe', 'permute'],
    ['precision=float8', 'precision'],
    ['tokens=0', 'tokens'],
    ['temperature=hot', 'temperature'],
    ['top-p=0', 'top-p'],
    ['seed=1e3', 'seed'],
    ['fact=one-two', 'fact'],
    ['fact=quiet-owl-01234-0.5', 'fact'],
    ['fact=quiet-owl-12345-1.5', 'fact'],
    ['ask=2', 'ask'],
  ]) {
    it(`${query} is named and leaves the default`, () => {
      const {settings, ignored} = readSettings(new URLSearchParams(query));
      const {keyBlockSize} = new URLSearchParams(query).has('segment') ? settings : defaultSettings();
      expect(settings).to.deep.equal({...defaultSettings(), keyBlockSize});
      expect(ignored).to.have.lengthOf(1);
      expect(ignored[0]).to.match(new RegExp(`^${name} is ".*"; accepted: `));
    });
  }

  it('name the second of two facts that one question would ask for', () => {
    const {settings, ignored} = readSettings(new URLSearchParams('fact=red-fox-11111-0&fact=red-fox-22222-1'));
    expect(settings.facts.map(({fact}) => fact.number)).to.deep.equal(['11111']);
    expect(ignored).to.deep.equal(['fact is "red-fox-22222-1"; accepted: one number for each adjective and noun']);
  });
});

describe('lengths', () => {
  it('are those that the model reads', () => {
    expect(offeredLengths(16_384)).to.deep.equal(LENGTHS);
    expect(offeredLengths(2000)).to.deep.equal([512, 1024]);
    expect(offeredLengths(100)).to.deep.equal([100]);
  });

  it('fit a model', () => {
    expect(fitLength(4096, 16_384)).to.equal(4096);
    expect(fitLength(4096, 2048)).to.equal(2048);
    expect(fitLength(512, 100)).to.equal(100);
  });

  it('can be made shorter down to the shortest', () => {
    expect(shorterLength(16_384)).to.equal(8192);
    expect(shorterLength(512)).to.equal(undefined);
  });
});

describe('runRequest', () => {
  const machine: Machine = {
    backend: 'webgpu',
    adapter: 'a',
    software: false,
    features: [],
    reason: 'r',
    float16: 'shader',
  };
  const settings: Settings = {...defaultSettings(), precision: 'float16', threshold: 0.7, pages: 3};

  it('carries the settings', () => {
    const request = runRequest(settings, 1024, machine);
    expect(request.prompt).to.deep.equal({task: 'find', length: 1024, seed: 3, facts: settings.facts, asked: 0});
    expect(request.options).to.deep.equal({
      ...{threshold: 0.7, estimate: 'sampled', blockSize: 128, keyBlockSize: 64, segmentSize: 256},
      ...{permute: true, precision: 'float16'},
    });
    expect(request.maxTokens).to.equal(8);
    expect(runRequest({...settings, task: 'continue'}, 1024, machine).maxTokens).to.equal(64);
  });

  it('asks for float32 where there is no float16', () => {
    expect(runRequest(settings, 512, {...machine, float16: 'none'}).options.precision).to.equal('float32');
  });
});
