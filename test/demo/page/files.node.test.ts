import {expect} from 'chai';
import {sortDropped} from '../../../demo/page/dropped_files';
import {readTextFile} from '../../../demo/page/own_text';

const named = (...names: string[]) => names.map((name) => new File([''], name));

describe('sortDropped', () => {
  it('takes files of a checkpoint for a model, with whatever lies beside them', () => {
    for (const names of [
      ['config.json', 'tokenizer.json', 'model.safetensors', 'README.md'],
      ['model-00001-of-00002.safetensors'],
      ['model.safetensors.index.json'],
    ]) {
      const files = named(...names);
      expect(sortDropped(files)).to.deep.equal({use: 'model', files});
    }
  });

  it('takes any other lone file for a text', () => {
    const [file] = named('story.md');
    expect(sortDropped([file])).to.deep.equal({use: 'text', file});
  });

  it('says why it takes nothing', () => {
    expect(sortDropped([])).to.include({use: 'none'});
    expect(sortDropped(named('a.txt', 'b.txt'))).to.deep.include({
      use: 'none',
      why: '2 files, none of them of a model; accepted: one text, or the files or the folder of one model',
    });
  });
});

describe('readTextFile', () => {
  const failure = async (file: File) =>
    readTextFile(file).then(
      () => 'no failure',
      (error: Error) => error.message,
    );

  it('reads UTF-8', async () => {
    expect(await readTextFile(new File(['Once — upon'], 'a.txt'))).to.equal('Once — upon');
  });

  it('names the file that is no text', async () => {
    expect(await failure(new File([new Uint8Array([0xff, 0xfe, 0x41])], 'a.doc'))).to.match(
      /^a\.doc is not a text in UTF-8/,
    );
    expect(await failure(new File(['a\0b'], 'b.bin'))).to.match(/^b\.bin is not a text: it holds zero bytes/);
  });

  it('refuses what is far longer than any prompt, before it is read', async () => {
    const long = new File([''], 'long.txt');
    Object.defineProperty(long, 'size', {value: 40 * 2 ** 20});
    expect(await failure(long)).to.equal('long.txt has 40 MiB; accepted: text of up to 8 MiB');
  });
});
