import {mkdirSync, writeFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import {expect} from 'chai';
import {filesOfModel, placeOfModel} from '../../../demo/ask/model_files';
import {HubServer} from '../../runner/hub/hub_server';
import {someBytes, temporaryStore} from '../../runner/hub/temporary_store';

describe('the model of npm run ask', () => {
  let kept: ReturnType<typeof temporaryStore>;

  beforeEach(() => (kept = temporaryStore()));
  afterEach(() => kept.remove());

  it('is a file or a folder of this disk, also where its name could be an address', () => {
    const file = join(kept.store.path, 'x.gguf');
    writeFileSync(file, 'x');
    mkdirSync(join(kept.store.path, 'sub'));
    expect(placeOfModel(file)).to.deep.equal({paths: [file]});
    expect(placeOfModel(kept.store.path)).to.deep.equal({paths: [file]});
    expect(placeOfModel('demo/ask')).to.have.property('paths').that.includes(join('demo/ask', 'command.ts'));
  });

  it('is downloaded by its address into the given folder', async () => {
    const server = await HubServer.open();
    try {
      server.files.set('owner/name/x.gguf', {bytes: someBytes(1000)});
      const place = placeOfModel('owner/name', server.url);
      expect(place).to.deep.equal({address: 'owner/name', hub: server.url});
      const [path, ...others] = await filesOfModel(place, kept.store.path);
      expect(others).to.deep.equal([]);
      expect(path.startsWith(kept.store.path)).to.equal(true);
      expect(basename(path)).to.equal('x.gguf');
    } finally {
      server.close();
    }
  });

  it('is refused where it is neither', () => {
    expect(() => placeOfModel('models/no-such.gguf')).to.throw(
      /^--model: no file or folder of this name, and "models\/no-such\.gguf" is no address of a model; accepted: owner\/name/,
    );
    expect(() => placeOfModel('owner/name', 'hub')).to.throw(/^--hub is "hub"; accepted: the address of a hub/);
  });
});
