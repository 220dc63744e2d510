import {expect} from 'chai';
import {BLOCK_TYPES, type BlockType} from '../../../runner/gguf/block_types';
import {dequantise} from '../../../runner/gguf/dequantise';
import {readBlocksReference, type BlocksReference} from './references';

/** So that -0 differs from 0. */
function bitsOf(values: Float32Array): number[] {
  return [...new Uint32Array(values.buffer, values.byteOffset, values.length)];
}

describe('dequantise', () => {
  let references: BlocksReference[];
  before(async () => {
    references = await readBlocksReference();
  });

  for (const type of Object.keys(BLOCK_TYPES) as BlockType[]) {
    it(`gives the bits that ggml gives, of ${type}`, () => {
      const ofType = references.filter((reference) => reference.type === type);
      expect(ofType).to.not.have.length(0);
      for (const {of, raw, values} of ofType) {
        const got = new Float32Array(values.length);
        dequantise(type, raw, got);
        const wanted = Float32Array.from(values, (value, i) => value ?? (got[i] < 0 ? -Infinity : Infinity));
        expect(bitsOf(got), `${type} of ${of}`).to.deep.equal(bitsOf(wanted));
      }
    });

    it(`reads and writes ${type} anywhere in a buffer`, () => {
      const {raw, values} = references.find((reference) => reference.type === type)!;
      const alone = new Float32Array(values.length);
      dequantise(type, raw, alone);
      const shifted = new Uint8Array(raw.length + 1);
      shifted.set(raw, 1);
      const larger = new Float32Array(values.length + 2).fill(7);
      dequantise(type, shifted.subarray(1), larger.subarray(1, -1));
      expect(bitsOf(larger)).to.deep.equal(bitsOf(Float32Array.of(7, ...alone, 7)));
    });
  }

  it('gives infinities of both signs, and NaN', () => {
    const halves = new Float32Array(3);
    dequantise('F16', Uint8Array.of(0x00, 0x7c, 0x00, 0xfc, 0x00, 0x7e), halves);
    expect([...halves]).to.deep.equal([Infinity, -Infinity, NaN]);
    const brains = new Float32Array(3);
    dequantise('BF16', Uint8Array.of(0x80, 0x7f, 0x80, 0xff, 0xc0, 0x7f), brains);
    expect([...brains]).to.deep.equal([Infinity, -Infinity, NaN]);
  });

  it('refuses parts of blocks, and room for other than the values', () => {
    expect(() => dequantise('Q4_K', new Uint8Array(143), new Float32Array(256))).to.throw(
      'Q4_K: 143 bytes for 256 values; accepted: 144 bytes for each 256 values',
    );
    expect(() => dequantise('Q8_0', new Uint8Array(68), new Float32Array(32))).to.throw('Q8_0: 68 bytes for 32 values');
  });
});
