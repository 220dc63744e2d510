import {expect} from 'chai';
import {Safetensors} from '../../../../runner/llama/safetensors';
import {float32Tensor, rejection, writeFile, writeSafetensors} from '../tiny/random_checkpoint';

function halves(...bits: number[]): Uint8Array {
  return new Uint8Array(Uint16Array.from(bits).buffer);
}

function oneTensor(entry: Record<string, unknown>, dataBytes = 8): ArrayBuffer {
  const sound = {dtype: 'F32', shape: [2], data_offsets: [0, 8]};
  return writeFile(JSON.stringify({w: {...sound, ...entry}}), new Uint8Array(dataBytes));
}

function open(bytes: ArrayBuffer): Promise<Safetensors> {
  return Safetensors.open(new File([bytes], 'part.safetensors'));
}

describe('Safetensors', () => {
  it('reads float32', async () => {
    const values = new Float32Array([1, -2.5, 3e-20, 6]);
    const file = await open(writeSafetensors({w: float32Tensor([2, 2], values)}));
    expect(file.names()).to.deep.equal(['w']);
    expect(await file.read('w')).to.deep.equal(values);
  });

  it('reads float16, subnormal and non-finite values too', async () => {
    const bytes = halves(0x3c00, 0xc100, 0x7bff, 0x0001, 0x83ff, 0x8000, 0x7c00, 0xfc00, 0x7e00);
    const file = await open(writeSafetensors({w: {dtype: 'F16', shape: [9], bytes}}));
    expect([...(await file.read('w'))]).to.deep.equal([
      1,
      -2.5,
      65504,
      2 ** -24,
      -1023 * 2 ** -24,
      -0,
      Infinity,
      -Infinity,
      NaN,
    ]);
  });

  it('reads bfloat16', async () => {
    const bytes = halves(0x3f80, 0xc020, 0x7f7f, 0x0080, 0xff80);
    const file = await open(writeSafetensors({w: {dtype: 'BF16', shape: [5], bytes}}));
    const largest = (2 - 2 ** -7) * 2 ** 127;
    expect([...(await file.read('w'))]).to.deep.equal([1, -2.5, largest, 2 ** -126, -Infinity]);
  });

  it('reads tensors at odd offsets, one after the other', async () => {
    // A header of odd length moves every value off its alignment.
    const header = {
      a: {dtype: 'F16', shape: [1], data_offsets: [0, 2]},
      b: {dtype: 'F32', shape: [1], data_offsets: [2, 6]},
    };
    const text = JSON.stringify(header);
    const padded = text.length % 2 === 0 ? `${text} ` : text;
    const file = await open(writeFile(padded, halves(0x4000), new Uint8Array(new Float32Array([7]).buffer)));
    expect([(await file.read('a'))[0], (await file.read('b'))[0]]).to.deep.equal([2, 7]);
  });

  for (const [dtype, bytes] of [
    ['F32', 4],
    ['F16', 2],
    ['BF16', 2],
  ] as const) {
    it(`reads a long ${dtype} tensor in pieces`, async () => {
      const size = (2 ** 25 + 4) / bytes;
      const stored = bytes === 4 ? new Float32Array(size) : new Uint16Array(size);
      // Zero but for one value on either side of the first piece's end, and the last.
      const one = {F32: 1, F16: 0x3c00, BF16: 0x3f80}[dtype];
      const places = [2 ** 24 / bytes - 1, 2 ** 24 / bytes, size - 1];
      for (const place of places) stored[place] = one;
      const tensor = {dtype, shape: [size], bytes: new Uint8Array(stored.buffer)};
      const file = new File([writeSafetensors({w: tensor})], 'part.safetensors');
      let longest = 0;
      const opened = await Safetensors.open({
        name: file.name,
        size: file.size,
        slice(start, end) {
          longest = Math.max(longest, end - start);
          return file.slice(start, end);
        },
      });
      const values = await opened.read('w');
      expect(values.length).to.equal(size);
      expect(places.map((place) => values[place])).to.deep.equal([1, 1, 1]);
      expect(values.reduce((sum, x) => sum + x, 0)).to.equal(3);
      expect(longest).to.be.at.most(2 ** 24);
    });
  }

  it('names a tensor that is missing', async () => {
    const file = await open(oneTensor({}));
    expect(await rejection(file.read('lm_head.weight'))).to.match(/^part\.safetensors: .*"lm_head\.weight" is missing/);
  });

  it('names a file that changed or broke off while it was read', async () => {
    const bytes = new File([oneTensor({})], 'part.safetensors');
    const reading = async (slice: (start: number, end: number) => {arrayBuffer(): Promise<ArrayBuffer>}) => {
      let opened = false;
      const file = await Safetensors.open({
        name: bytes.name,
        size: bytes.size,
        slice: (start, end) => (opened ? slice(start, end) : bytes.slice(start, end)),
      });
      opened = true;
      return rejection(file.read('w'));
    };
    expect(await reading((start, end) => bytes.slice(start, end - 1))).to.match(
      /^part\.safetensors: got 7 bytes at \d+, wanted 8/,
    );
    const unreadable = {arrayBuffer: () => Promise.reject(new Error('no permission'))};
    expect(await reading(() => unreadable)).to.equal('part.safetensors: could not be read: no permission');
  });

  /** Two tensors of a float32 each, or others in their place, over so many bytes. */
  const twoTensors = (entries: object, dataBytes: number): ArrayBuffer => {
    const tensor = (start: number) => ({dtype: 'F32', shape: [1], data_offsets: [start, start + 4]});
    return writeFile(JSON.stringify({a: tensor(0), b: tensor(4), ...entries}), new Uint8Array(dataBytes));
  };
  const at = (start: number) => ({dtype: 'F32', shape: [1], data_offsets: [start, start + 4]});

  it('reads tensors in any order, of no values too', async () => {
    const empty = {dtype: 'F32', shape: [0, 3], data_offsets: [8, 8]};
    const file = await open(twoTensors({a: at(4), b: at(0), c: empty}, 8));
    expect(file.names()).to.deep.equal(['a', 'b', 'c']);
    expect([...(await file.read('c'))]).to.deep.equal([]);
  });

  const damaged: Array<[what: string, file: ArrayBuffer, message: RegExp]> = [
    ['a file of 5 bytes', new ArrayBuffer(5), /5 bytes; the header length alone takes 8/],
    ['a header longer than the file', new Uint8Array([255, 0, 0, 0, 0, 0, 0, 0, 123]).buffer, /claims 255 bytes.* 1:/],
    ['a header length past 2^53', new Uint8Array(16).fill(255).buffer, /claims 18446744073709551615 bytes/],
    ['a header that is not JSON', writeFile('{"w": '), /the header: not JSON/],
    ['a header that is a list', writeFile('[1]'), /the header: got a list; accepted: a JSON object/],
    ['an entry that is null', writeFile('{"w": null}'), /"w" has dtype missing/],
    ['int64', oneTensor({dtype: 'I64'}), /"w" has dtype "I64"; accepted: F32, F16, BF16/],
    ['a dtype named like a method', oneTensor({dtype: 'toString'}), /dtype "toString"/],
    ['a negative size', oneTensor({shape: [-2]}), /"w" has shape \[-2\]/],
    ['a shape of words', oneTensor({shape: 'two'}), /"w" has shape "two"/],
    ['one offset', oneTensor({data_offsets: [8]}), /"w" has data_offsets \[8\]/],
    ['offsets in reverse', oneTensor({data_offsets: [8, 0]}), /"w" has data_offsets \[8,0\]/],
    ['too many bytes for the shape', oneTensor({shape: [1]}), /"w" spans 8 bytes; \[1\] of F32 takes 4/],
    [
      'tensors that overlap',
      twoTensors({b: at(2)}, 8),
      /"b" starts at byte \d+, "a" ends at \d+; accepted: .* side by/,
    ],
    ['tensors in the same place', twoTensors({b: at(0)}, 4), /"b" starts at byte \d+, "a" ends at \d+/],
    ['a gap between tensors', twoTensors({b: at(8)}, 12), /"b" starts at byte \d+, "a" ends at/],
    ['a gap before the first', twoTensors({a: at(8)}, 12), /"b" starts at byte \d+, the header ends at/],
    ['bytes after the last', twoTensors({}, 9), /: 1 bytes follow "b"; accepted: none after the last tensor/],
    ['a name that stands twice', writeFile('{"w": {}, "v": {}, "\\u0077": {}}'), /header: "w" stands twice; accepted/],
    [
      'a field that stands twice',
      writeFile('{"w": {"dtype":"F32","shape":[1],"shape":[0],"data_offsets":[0,0]}}'),
      /header: "shape" stands twice/,
    ],
    ['a byte order mark', writeFile('\ufeff{}'), /the header: not JSON/],
    ['a header that is no UTF-8', new Uint8Array([3, 0, 0, 0, 0, 0, 0, 0, 34, 255, 34]).buffer, /the header: not JSON/],
    ['a truncated file', oneTensor({}, 7), /"w" ends at byte \d+; the file has \d+: is it truncated\?/],
  ];
  for (const [what, file, message] of damaged) {
    it(`refuses ${what}`, async () => {
      const error = await rejection(open(file));
      expect(error).to.match(message);
      expect(error).to.match(/^part\.safetensors: /);
    });
  }
});
