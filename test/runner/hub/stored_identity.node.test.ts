import {expect} from 'chai';
import type {ManifestFile} from '../../../runner/hub/store';
import {storedIdentity} from '../../../runner/hub/stored_identity';
import {temporaryStore} from './temporary_store';

const ADDRESS = 'https://host/tiny.gguf';

describe('the identity of a stored model', () => {
  let folder: ReturnType<typeof temporaryStore>;
  beforeEach(() => (folder = temporaryStore()));
  afterEach(() => folder.remove());

  /** What is said of a model with this entry for its file. */
  async function identityWith(entry: Partial<ManifestFile>): Promise<string | undefined> {
    await folder.store.use('tiny', async (model) => {
      await model.remove('tiny.gguf');
      const file = await model.append('tiny.gguf');
      await file.write(new Uint8Array(3));
      await file.close();
      const whole = {name: 'tiny.gguf', url: ADDRESS, listed: false, size: 3, complete: true};
      await model.writeManifest({name: ADDRESS, addresses: [ADDRESS], files: [{...whole, ...entry}]});
    });
    return storedIdentity(ADDRESS, folder.store);
  }

  it('tells files apart by hash, by version, or by the commit in a hub’s URL', async () => {
    const said = [
      await identityWith({sha256: 'a1'}),
      await identityWith({sha256: 'b2'}),
      await identityWith({version: '"e1"'}),
      await identityWith({version: '"e2"'}),
      await identityWith({listed: true, url: `${ADDRESS}?c1`}),
      await identityWith({listed: true, url: `${ADDRESS}?c2`}),
    ];
    expect(said).not.to.include(undefined);
    expect(new Set(said).size).to.equal(said.length);
    expect(await identityWith({sha256: 'a1', url: 'elsewhere'})).to.equal(said[0]);
  });

  it('is not said where nothing tells, or the model is not there', async () => {
    expect(await identityWith({})).to.equal(undefined);
    expect(await identityWith({sha256: 'a1', complete: false})).to.equal(undefined);
    expect(await storedIdentity('https://host/other.gguf', folder.store)).to.equal(undefined);
  });
});
