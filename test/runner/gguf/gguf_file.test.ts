import {expect} from 'chai';
import type {MetadataValue} from '../../../runner/gguf/metadata';
import {GGUFFile} from '../../../runner/gguf/gguf_file';
import {fixture} from '../../setup/environment';
import {rejection} from '../llama/tiny/random_checkpoint';
import {MadeFile, readReference, type ValidReference} from './references';
import {VALUE_TYPE, writeGGUF, type WrittenEntry} from './write_gguf';

function open(bytes: BlobPart): Promise<GGUFFile> {
  return GGUFFile.open(new File([bytes], 'tiny.gguf'));
}

async function sha256(values: Float32Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new Uint8Array(values.slice().buffer));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A value of valid.json as the reader gives it. */
function readValue({type, value}: WrittenEntry): MetadataValue {
  if (typeof value === 'object') return value.values.map((item) => readValue({type: value.of, value: item}));
  if (type === VALUE_TYPE.uint64 || type === VALUE_TYPE.int64) return value === '0' ? 0 : BigInt(value);
  return type === VALUE_TYPE.float32 ? Math.fround(Number(value)) : value;
}

const strings = (values: string[]): WrittenEntry => ({
  type: VALUE_TYPE.array,
  value: {of: VALUE_TYPE.string, values},
});

describe('GGUFFile', () => {
  describe('the reference file', () => {
    let file: GGUFFile;
    let reference: ValidReference;
    before(async () => {
      reference = (await readReference('valid.json')) as ValidReference;
      file = await open(await fixture('test/runner/gguf/valid.gguf'));
    });

    it('has metadata of every type', () => {
      const wanted = Object.entries(reference.metadata).map(([key, entry]) => [key, readValue(entry)]);
      expect([...file.metadata]).to.deep.equal(wanted);
      expect(file.metadata.get('reference.u64')).to.equal(9223372036854788153n);
    });

    it('has names, shapes outermost first, and types', () => {
      expect(file.fileName).to.equal('tiny.gguf');
      expect(file.names().map((name) => [name, file.shape(name), file.type(name)])).to.deep.equal(
        reference.tensors.map(({name, dims, type}) => [name, [...dims].reverse(), type]),
      );
      expect(file.shape('token_embd.weight')).to.deep.equal([298, 32]);
    });

    it('has the values that gguf-py gives', async () => {
      for (const {name, first, f32_sha256: digest} of reference.tensors) {
        const values = await file.read(name);
        expect([...values.subarray(0, 4)], name).to.deep.equal(first.map(Math.fround));
        expect(await sha256(values), name).to.equal(digest);
      }
    });

    it('gives blocks as they are', async () => {
      const bytes = new Uint8Array(await fixture('test/runner/gguf/valid.gguf'));
      const [first] = reference.tensors;
      const blocks = await file.readBlocks(first.name);
      expect(blocks).to.deep.equal(bytes.subarray(first.offset, first.offset + first.bytes));
    });

    it('says which tensor is missing', async () => {
      expect(file.has('token_embd.weight')).to.equal(true);
      expect(file.has('other')).to.equal(false);
      expect(await rejection(file.read('other'))).to.equal(
        'tiny.gguf: tensor "other" is missing; the file has 12 others',
      );
      expect(() => file.shape('other')).to.throw('tiny.gguf: tensor "other" is missing');
    });
  });

  it('reads version 2', async () => {
    const file = await open(writeGGUF({a: {type: VALUE_TYPE.uint8, value: 3}}, [], {version: 2}));
    expect([...file.metadata]).to.deep.equal([['a', 3]]);
    expect(file.names()).to.deep.equal([]);
  });

  it('gives 64-bit integers as numbers where these are exact', async () => {
    const integers: [number, string, number | bigint][] = [
      [VALUE_TYPE.uint64, '9007199254740991', 2 ** 53 - 1],
      [VALUE_TYPE.uint64, '9007199254740992', 2n ** 53n],
      [VALUE_TYPE.uint64, '18446744073709551615', 2n ** 64n - 1n],
      [VALUE_TYPE.int64, '-9007199254740991', 1 - 2 ** 53],
      [VALUE_TYPE.int64, '-9007199254740993', -(2n ** 53n) - 1n],
      [VALUE_TYPE.int64, '-1', -1],
    ];
    const entries = integers.map(([type, value], i) => [`key ${i}`, {type, value}] as const);
    const {metadata} = await open(writeGGUF(Object.fromEntries(entries)));
    expect([...metadata.values()]).to.deep.equal(integers.map(([, , wanted]) => wanted));
  });

  it('keeps byte order marks, and keys that every object has', async () => {
    const {metadata} = await open(
      writeGGUF({['__proto__']: {type: VALUE_TYPE.uint8, value: 1}, tokens: strings(['\ufeffusing', '\ufeff', ''])}),
    );
    expect(metadata.get('__proto__')).to.equal(1);
    expect(metadata.get('tokens')).to.deep.equal(['\ufeffusing', '\ufeff', '']);
  });

  it('reads arrays in arrays, four deep at most', async () => {
    let value: WrittenEntry = {type: VALUE_TYPE.uint8, value: 5};
    for (let i = 0; i < 4; ++i) value = {type: VALUE_TYPE.array, value: {of: value.type, values: [value.value]}};
    const {metadata} = await open(writeGGUF({a: value}));
    expect(metadata.get('a')).to.deep.equal([[[[5]]]]);
    const deeper = {type: VALUE_TYPE.array, value: {of: value.type, values: [value.value]}};
    expect(await rejection(open(writeGGUF({a: deeper})))).to.equal(
      'tiny.gguf: metadata "a": an array in an array, and so on; accepted: up to 4 within each other',
    );
  });

  it('reads headers of several pieces, whatever lies across their borders', async () => {
    // Of about 3 MB, with strings of all lengths about the borders.
    const tokens = Array.from({length: 200_000}, (_, i) => `${i}é`.padEnd(1 + (i % 13), 'x'));
    const scores = Array.from({length: 200_000}, (_, i) => -i / 4);
    const {metadata} = await open(
      writeGGUF({
        tokens: strings(tokens),
        scores: {type: VALUE_TYPE.array, value: {of: VALUE_TYPE.float32, values: scores}},
        last: {type: VALUE_TYPE.string, value: 'end'},
      }),
    );
    expect((metadata.get('tokens') as string[]).join()).to.equal(tokens.join());
    expect((metadata.get('scores') as number[]).join()).to.equal(scores.join());
    expect(metadata.get('last')).to.equal('end');
  });

  it('reads a string that ends with the first piece, and one that goes on', async () => {
    const before = writeGGUF({a: strings(['', 'last'])}).length - 'last'.length;
    for (const inside of [0, 1, 4]) {
      const long = 'x'.repeat(2 ** 20 - before - inside);
      const {metadata} = await open(writeGGUF({a: strings([long, 'last'])}));
      expect(metadata.get('a'), `${inside} bytes inside`).to.deep.equal([long, 'last']);
    }
  });

  it('reads nothing but the header of a long file', async () => {
    const tensor = {name: 'w', dims: [4], type: 0, bytes: new Uint8Array(Float32Array.of(1, 2, -3, 0.5).buffer)};
    const made = new MadeFile(writeGGUF({}, [tensor]), 2 ** 40);
    const file = await GGUFFile.open(made);
    expect(made.bytesRead).to.be.within(1, 2 ** 20);
    made.bytesRead = 0;
    expect([...(await file.read('w'))]).to.deep.equal([1, 2, -3, 0.5]);
    expect(made.bytesRead).to.equal(16);
  });

  it('reads tensors longer than a piece', async () => {
    // Blocks of Q8_0 do not fill a piece of 2 MiB.
    const blocks = 2 ** 17;
    const bytes = Uint8Array.from({length: 34 * blocks}, (_, i) => (i % 34 === 0 ? 0 : i % 34 === 1 ? 0x3c : i % 251));
    const file = await open(writeGGUF({}, [{name: 'w', dims: [64, blocks / 2], type: 8, bytes}]));
    const wanted = Float32Array.from({length: 32 * blocks}, (_, i) => {
      const byte = bytes[34 * Math.floor(i / 32) + 2 + (i % 32)];
      return byte < 128 ? byte : byte - 256;
    });
    expect(await sha256(await file.read('w'))).to.equal(await sha256(wanted));
  });

  it('reads tensors at the alignment that the file has, and in any order', async () => {
    const tensor = (name: string, value: number) => ({
      name,
      dims: [1],
      type: 0,
      bytes: new Uint8Array(Float32Array.of(value).buffer),
    });
    for (const alignment of [1, 4, 256]) {
      const entry = {type: VALUE_TYPE.uint32, value: alignment};
      const tensors = [tensor('a', 1), tensor('b', 2), tensor('c', 3)];
      const file = await open(writeGGUF({'general.alignment': entry}, tensors, {alignment}));
      const values = await Promise.all(['c', 'a', 'b'].map((name) => file.read(name)));
      expect(
        values.map(([value]) => value),
        `alignment ${alignment}`,
      ).to.deep.equal([3, 1, 2]);
    }
  });
});
