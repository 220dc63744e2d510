import {expect} from 'chai';
import {readDocument} from '../../../../demo/page/chat/read_document';

describe('readDocument', () => {
  const failure = (file: File) => readDocument(file).then(String, (error: Error) => error.message);

  it('takes any text by its content', async () => {
    const code = new File(['for (;;) {}\n'], 'loop.rs');
    expect(await readDocument(code)).to.deep.equal({name: 'loop.rs', text: 'for (;;) {}\n'});
  });

  it('says why a file is no document', async () => {
    expect(await failure(new File([Uint8Array.of(0xff, 0xd8, 0xff)], 'photo.jpg'))).to.match(
      /photo\.jpg is not a text in UTF-8/,
    );
    expect(await failure(new File([' \n'], 'empty.txt'))).to.match(/empty\.txt holds no text; accepted: text/);
  });
});
