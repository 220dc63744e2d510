import {existsSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {expect} from 'chai';
import {modelId} from '../../../runner/hub/store';
import {rejection} from '../llama/tiny/random_checkpoint';
import {someBytes, temporaryStore} from './temporary_store';

const ID = modelId('owner/name');

describe('models in a folder', () => {
  let kept: ReturnType<typeof temporaryStore>;

  beforeEach(() => (kept = temporaryStore()));
  afterEach(() => kept.remove());

  /** A model of one file of ten bytes. */
  async function keep(complete: boolean): Promise<void> {
    await kept.store.use(ID, async (folder) => {
      const appender = await folder.append('x.gguf');
      await appender.write(someBytes(10));
      await appender.close();
      const files = [{name: 'x.gguf', url: 'https://host/x.gguf', listed: true, size: 10, complete}];
      await folder.writeManifest({name: 'owner/name', addresses: ['owner/name'], files});
    });
  }

  it('are listed and deleted', async () => {
    expect(await kept.store.list()).to.deep.equal([]);
    await keep(true);
    const [model] = await kept.store.list();
    expect(model).to.deep.equal({id: ID, name: 'owner/name', bytes: 10, complete: true, addresses: ['owner/name']});
    await kept.store.delete(ID);
    expect(await kept.store.list()).to.deep.equal([]);
    expect(existsSync(join(kept.store.path, ID))).to.equal(false);
    await kept.store.delete(ID);
  });

  it('are listed in part, and without a manifest that can be read', async () => {
    await keep(false);
    expect((await kept.store.list())[0]).to.include({complete: false, bytes: 10});
    writeFileSync(join(kept.store.path, ID, 'manifest.json'), '{"name": "owner/na');
    expect((await kept.store.list())[0]).to.include({id: ID, name: ID, complete: false});
    await kept.store.delete(ID);
    expect(await kept.store.list()).to.deep.equal([]);
  });

  it('are read in slices', async () => {
    await keep(true);
    const file = await kept.store.use(ID, (folder) => folder.open('x.gguf'));
    expect(file).to.include({name: 'x.gguf', size: 10});
    expect(new Uint8Array(await file.slice(3, 7).arrayBuffer())).to.deep.equal(someBytes(10).slice(3, 7));
    expect((await file.slice(8, 20).arrayBuffer()).byteLength).to.equal(2);
  });

  it('are used by one at a time; one that ended without a word does not count', async () => {
    const second = kept.store.use(ID, () => rejection(kept.store.use(ID, async () => {})));
    expect(await second).to.match(new RegExp(`lock: process ${process.pid} is at this model; wait for it`));
    await kept.store.use(ID, async () => {});
    // Above the largest id that Linux gives.
    writeFileSync(join(kept.store.path, ID, 'lock'), String(2 ** 22 + 1));
    await kept.store.use(ID, async () => {});
    expect(existsSync(join(kept.store.path, ID, 'lock'))).to.equal(false);
  });

  it('have ids that lead nowhere else', async () => {
    for (const id of ['', '..', '../other', 'a/b', '.hidden']) {
      expect(await rejection(kept.store.delete(id)), id).to.match(/accepted: one of list\(\)$/);
    }
  });

  it('have ids of their names, different for different names', () => {
    expect(ID).to.match(/^owner-name-[\da-f]{8}$/);
    expect(modelId('owner-name')).not.to.equal(ID);
    expect(modelId('https://host.example/a b/x.gguf?key=1')).to.match(/^host\.example-a-b-x\.gguf-key-1-[\da-f]{8}$/);
    expect(modelId('/'.repeat(500))).to.match(/^[\da-f]{8}$/);
  });
});
