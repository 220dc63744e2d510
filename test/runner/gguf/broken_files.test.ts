import {expect} from 'chai';
import fc from 'fast-check';
import {GGUFFile} from '../../../runner/gguf/gguf_file';
import {fixture} from '../../setup/environment';
import {rejection} from '../llama/tiny/random_checkpoint';
import {MadeFile, readBrokenFiles, readReference, type BrokenFile, type ValidReference} from './references';
import {VALUE_TYPE, writeGGUF, type WrittenEntry} from './write_gguf';

/** How the error of each broken file begins, after its name. Those of stage `model` are not refused here. */
const REFUSALS: Record<string, string> = {
  'magic.gguf': 'magic: "GGUX"; accepted: "GGUF"',
  'magic-ggml.gguf': 'magic: "tjgg"; accepted: "GGUF"',
  'empty.gguf': 'magic: 4 bytes at byte 0; accepted: the 0 that are left',
  'three-bytes.gguf': 'magic: 4 bytes at byte 0; accepted: the 3 that are left',
  'header-only.gguf': 'number of tensors: 8 bytes at byte 8; accepted: the 0 that are left',
  'version-1.gguf': 'version: 1; accepted: 2 and 3',
  'version-4.gguf': 'version: 4; accepted: 2 and 3',
  'version-0.gguf': 'version: 0; accepted: 2 and 3',
  'big-endian.gguf': 'version: 3 of a big-endian file; accepted: 2 and 3 of little-endian files',
  'metadata-truncated.gguf': 'metadata key 13 of 15: 25 bytes at byte 702; accepted: the 16 that are left',
  'infos-truncated.gguf': 'tensor "blk.0.ffn_gate.weight": dimensions: [8,32] of F16, which take 512 bytes; accepted:',
  'kv-count-huge.gguf': 'number of metadata entries: 1152921504606846976; accepted: up to 256, for which the 3592',
  'kv-count-max.gguf': 'number of metadata entries: 18446744073709551615; accepted: up to 256',
  'tensor-count-huge.gguf': 'number of tensors: 1152921504606846976; accepted: up to 109, for which the 3600 bytes',
  'tensor-count-more.gguf': 'name of tensor 12 of 12: length: 0; accepted: 1 to 64 bytes',
  'string-huge.gguf': 'metadata "general.architecture": length: 1152921504606846976; accepted: 0 to 8388608 bytes',
  'string-past-end.gguf': 'metadata "general.architecture": 100000 bytes at byte 64; accepted: the 3552 that are left',
  'string-2-53.gguf': 'metadata "general.architecture": length: 9007199254740997; accepted: 0 to 8388608 bytes',
  'key-huge.gguf': 'metadata key 1 of 15: length: 9223372036854775808; accepted: 1 to 65535 bytes',
  'array-huge.gguf': 'metadata "x.array": number of elements: 2305843009213693952; accepted: up to 341',
  'array-strings-huge.gguf': 'metadata "x.array": number of elements: 1099511627776; accepted: up to 341',
  'value-type-unknown.gguf': 'metadata "x.value": type: 99; accepted: 0 to 12',
  'array-type-unknown.gguf': 'metadata "x.array": type of the elements: 13; accepted: 0 to 12',
  'array-nested-deep.gguf': 'metadata "x.array": an array in an array, and so on; accepted: up to 4',
  'tensor-type-unknown.gguf': 'tensor "blk.0.attn_q.weight": type: the unknown 200; accepted: F32, F16, Q4_0',
  'tensor-type-removed.gguf': 'tensor "blk.0.attn_q.weight": type: Q4_2 (4), removed from ggml; accepted: F32, F16',
  'dims-overflow.gguf': 'tensor "blk.0.attn_q.weight": dimensions: [1099511627776,1099511627776] of F16, which take',
  'dims-overflow-to-zero.gguf': 'tensor "blk.0.attn_q.weight": dimensions: [4294967296,4294967296] of F16, which take',
  'dims-negative.gguf': 'tensor "blk.0.attn_q.weight": dimensions: [18446744073709551608,8] of F16, which take',
  'dims-too-many.gguf': 'tensor "blk.0.attn_q.weight": number of dimensions: 2147483648; accepted: 1 to 4',
  'dims-five.gguf': 'tensor "blk.0.attn_q.weight": number of dimensions: 5; accepted: 1 to 4',
  'dims-block.gguf':
    'tensor "blk.0.ffn_down.weight": dimensions: [16,16] of Q8_0; accepted: a first one that is a multiple',
  'dims-larger.gguf': 'tensor "blk.0.attn_norm.weight": offset: it starts at byte 1824, before the end of "token_embd',
  'offset-beyond.gguf':
    'tensor "output_norm.weight": offset: 1048576, with which it ends at byte 1050176; accepted: ends',
  'offset-overflow.gguf':
    'tensor "output_norm.weight": offset: 18446744073709551584, with which it ends at byte 184467',
  'offset-misaligned.gguf': 'tensor "output_norm.weight": offset: 2012; accepted: multiples of 32',
  'tensors-overlap.gguf':
    'tensor "blk.0.ffn_up.weight": offset: it starts at byte 2272, before the end of "blk.0.ffn_gate',
  'tensors-overlap-part.gguf':
    'tensor "output_norm.weight": offset: it starts at byte 3552, before the end of "blk.0.ffn',
  'data-truncated.gguf':
    'tensor "output_norm.weight": offset: 2016, with which it ends at byte 3616; accepted: ends up to',
  'data-missing.gguf': 'tensor "blk.0.ffn_gate.weight": dimensions: [8,32] of F16, which take 512 bytes; accepted:',
  'name-duplicate.gguf': 'tensor "blk.0.ffn_gate.weight": stands twice; accepted: each name once',
  'name-long.gguf': 'name of tensor 12 of 12: length: 80; accepted: 1 to 64 bytes',
  'key-duplicate.gguf': 'metadata "llama.block_count": stands twice; accepted: each key once',
  'alignment-zero.gguf': 'metadata "general.alignment": 0; accepted: a power of two',
  'alignment-odd.gguf': 'metadata "general.alignment": 12; accepted: a power of two',
  'string-utf8.gguf': 'metadata "general.architecture": the bytes 6c 6c ff fe 61; accepted: UTF-8',
};

const zeros = (count: number, of: number): WrittenEntry => ({
  type: VALUE_TYPE.array,
  value: {of, values: Array<number>(count).fill(0)},
});

/** Of a well-formed file with an array as its last entry, the same with another number of elements. */
function withElements(count: number, of: number): Uint8Array<ArrayBuffer> {
  const bytes = writeGGUF({a: zeros(0, of)});
  new DataView(bytes.buffer).setBigUint64(bytes.length - 8, BigInt(count), true);
  return bytes;
}

describe('GGUFFile and broken files', () => {
  describe('the references', () => {
    let files: BrokenFile[];
    before(async () => {
      files = await readBrokenFiles();
    });

    for (const [name, wanted] of Object.entries(REFUSALS)) {
      it(`refuses ${name}`, async () => {
        const {bytes} = files.find(({file}) => file === name)!;
        expect(
          (await rejection(GGUFFile.open(new File([bytes], name)))).slice(0, name.length + 2 + wanted.length),
        ).to.equal(`${name}: ${wanted}`);
      });
    }

    it('refuses every file that is to be, and opens the rest', async () => {
      const opened: string[] = [];
      for (const {file: name, bytes} of files) {
        if (name in REFUSALS) continue;
        await GGUFFile.open(new File([bytes], name));
        opened.push(name);
      }
      const expected = files.filter(({stage, expect}) => expect === 'accept' || stage === 'model');
      expect(opened.sort()).to.deep.equal([...expected.map(({file}) => file), 'offset-gap.gguf'].sort());
    });
  });

  it('refuses alignments that are no number, and booleans that are neither', async () => {
    const text = {'general.alignment': {type: VALUE_TYPE.string, value: '32'}};
    expect(await rejection(GGUFFile.open(new File([writeGGUF(text)], 'f')))).to.equal(
      'f: metadata "general.alignment": a string; accepted: a power of two up to 2^31',
    );
    const two = {a: {type: VALUE_TYPE.bool, value: 2}};
    expect(await rejection(GGUFFile.open(new File([writeGGUF(two)], 'f')))).to.equal(
      'f: metadata "a": a boolean of 2; accepted: 0, 1',
    );
  });

  it('refuses tensors without values, and names types that it does not read', async () => {
    const empty = writeGGUF({}, [{name: 'w', dims: [32, 0], type: 8, bytes: new Uint8Array(34)}]);
    expect(await rejection(GGUFFile.open(new File([empty], 'f')))).to.contain(
      'f: tensor "w": dimensions: [32,0] of Q8_0, which take 0 bytes; accepted: at least one value',
    );
    const other = writeGGUF({}, [{name: 'w', dims: [256], type: 10, bytes: new Uint8Array(84)}]);
    expect(await rejection(GGUFFile.open(new File([other], 'f')))).to.contain(
      'f: tensor "w": type: Q2_K (10); accepted: ',
    );
  });

  // In files long enough for what they claim.
  it('refuses arrays that would fill the memory, before they do', async () => {
    for (const of of [VALUE_TYPE.uint8, VALUE_TYPE.uint64]) {
      const made = new MadeFile(withElements(100_000_000, of), 2 ** 40);
      expect(await rejection(GGUFFile.open(made))).to.match(
        /^made.gguf: metadata "a": with it the header takes \d+ bytes of memory; accepted: up to 80000000/,
      );
      expect(made.bytesRead).to.be.within(1, 2 ** 20);
    }
  });

  it('refuses strings and arrays that would, once they begin to', async function () {
    this.timeout(30_000);
    for (const of of [VALUE_TYPE.string, VALUE_TYPE.array]) {
      const made = new MadeFile(withElements(100_000_000, of), 2 ** 40);
      expect(await rejection(GGUFFile.open(made))).to.contain('made.gguf: metadata "a": with it the header takes');
      expect(made.bytesRead).to.be.within(1, 20_000_000);
    }
  });

  describe('changed by chance', () => {
    let valid: Uint8Array<ArrayBuffer>;
    let headerBytes: number;
    let dataEnd: number;
    before(async () => {
      valid = new Uint8Array(await fixture('test/runner/gguf/valid.gguf'));
      const {tensors} = (await readReference('valid.json')) as ValidReference;
      headerBytes = tensors[0].offset;
      dataEnd = Math.max(...tensors.map(({offset, bytes}) => offset + bytes));
    });

    /** Whether the file was refused; throws unless with an error of its own. */
    async function refused(bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
      let file: GGUFFile;
      try {
        file = await GGUFFile.open(new File([bytes], 'valid.gguf'));
      } catch (error) {
        expect(error).to.have.property('constructor', Error);
        expect((error as Error).message).to.match(/^valid\.gguf: [^;]+: .+; accepted: .+/s);
        return true;
      }
      for (const name of file.names()) await file.read(name);
      return false;
    }

    it('refuses a truncation that takes from a tensor or the header, and no other', () =>
      fc.assert(
        fc.asyncProperty(
          fc.oneof(fc.nat(headerBytes), fc.nat(valid.length), fc.integer({min: dataEnd - 1, max: valid.length})),
          async (length) => {
            expect(await refused(valid.slice(0, length))).to.equal(length < dataEnd);
          },
        ),
        {numRuns: 300},
      ));

    it('opens or refuses a file with a changed byte', async () => {
      const outcomes = new Set<boolean>();
      await fc.assert(
        fc.asyncProperty(fc.nat(headerBytes - 1), fc.integer({min: 1, max: 255}), async (at, change) => {
          const bytes = valid.slice();
          bytes[at] ^= change;
          outcomes.add(await refused(bytes));
        }),
        {numRuns: 500},
      );
      expect([...outcomes]).to.have.members([true, false]);
    });
  });
});
