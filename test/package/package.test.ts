import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {copyFile, mkdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Browser} from 'playwright-core';
import {chromium} from 'playwright-core';
import type {PreviewServer} from 'vite';
import {preview} from 'vite';
import * as source from '../../src/index';
import {version} from '../../src/version';
import {findChromium, softwareFlags} from '../../hosts/chromium';
import {onCpu, programOf, runProgram, serveModel, softwareVulkan} from './adopt_pages';
import type {Measured} from './measure';
import {measure} from './measure';
import type {Project} from './project';
import {check, createProject} from './project';
import {typeErrors} from './types';

/** What the package computes everywhere must be what the sources compute here on the CPU, and what tfjs's own ops do. */
async function expectAttention(measured: Record<string, Measured>, backends: readonly string[]): Promise<void> {
  const {cpu: expected} = await measure(tf, source, ['cpu']);
  expect(Object.keys(measured)).to.deep.equal(backends);
  for (const [backend, got] of Object.entries(measured)) {
    expect(got.active, backend).to.equal(backend === 'imported' ? 'cpu' : backend);
    expectClose(got.exact, got.composed, `${backend}: exact attention against composed`);
    expectClose(got.sparse, expected.sparse, `${backend}: sparse attention against the CPU`);
    expect(got.chainedExact, `${backend}: chained exact`).to.deep.equal(got.exact);
    expect(got.chainedSparse, `${backend}: chained sparse`).to.deep.equal(got.sparse);
    expect(got.density, `${backend}: density`).to.be.within(0.3, 0.9).and.closeTo(expected.density, 1e-6);
  }
}

function expectClose(got: number[], expected: number[], what: string): void {
  expect(got).to.have.length(expected.length);
  const error = Math.max(...got.map((value, i) => Math.abs(value - expected[i])));
  expect(error, what).to.be.below(1e-4);
}

describe('package', function () {
  this.timeout(300_000);
  let project: Project;
  before(async () => {
    project = await createProject();
  });
  after(() => project?.remove());

  describe('declarations', () => {
    it('the version in the sources is that of the package', async () => {
      const packed = await readFile(join(project.folder, 'node_modules/tfjs-pbs-attention/package.json'), 'utf8');
      expect(JSON.parse(packed).version).to.equal(version);
    });

    it('publint finds nothing', () => check('publint', 'run', '--strict', project.tarball));

    it('attw finds nothing, in any resolution', () => check('attw', project.tarball));

    for (const [name, resolution, extension] of [
      ['a bundler', 'Bundler', 'mts'],
      ['Node, ESM', 'NodeNext', 'mts'],
      ['Node, CommonJS', 'NodeNext', 'cts'],
    ] as const) {
      it(`a user's program compiles: ${name}`, async () => {
        const file = `types_${resolution}.${extension}`;
        await copyFile(join(project.folder, 'types.mts'), join(project.folder, file));
        expect(typeErrors(project.folder, file, resolution)).to.deep.equal([]);
      });
    }
  });

  describe('Node', () => {
    for (const [name, file, backends] of [
      ['ESM', 'node_esm.mjs', ['cpu']],
      ['CommonJS', 'node_cjs.cjs', ['cpu']],
      ['ESM and CommonJS side by side', 'node_both.mjs', ['cpu', 'imported']],
      ['two copies of tfjs-core', 'two_cores.cjs', ['cpu']],
    ] as const) {
      it(name, async () => {
        const {stdout, stderr} = await project.node(file);
        await expectAttention(JSON.parse(lastLine(stdout)), backends);
        expect(stderr).not.to.match(/already registered/);
      });
    }

    for (const file of ['entries_esm.mjs', 'entries_cjs.cjs']) {
      it(`the entries ./layers and ./graph: ${file}`, async () => {
        const {stdout} = await project.node(file);
        expect(lastLine(stdout)).to.equal('1,2,64,8 function function');
      });
    }

    for (const file of ['webgpu_esm.mjs', 'webgpu_cjs.cjs']) {
      it(`the entry ./webgpu: ${file}`, async () => {
        const {stdout} = await project.node(file);
        expect(lastLine(stdout)).to.match(/^registerWebGPUBackend: got no WebGPU adapter/);
      });
    }
  });

  describe('the programs of docs/adopt', () => {
    const run = (code: string, env?: NodeJS.ProcessEnv) => runProgram(project.folder, code, env);

    it('tfjs ops', async () => {
      expect(await run(onCpu(await programOf('plain-ops.md')))).to.match(/^true$/m);
    });

    it('tfjs-layers', async () => {
      expect(await run(onCpu(await programOf('layers.md')))).to.match(/^2,128,32$/m);
    });

    it('graph models', async () => {
      const {url, close} = await serveModel();
      const program = onCpu(await programOf('graph-models.md')).replace('model/model.json', url);
      const use = "console.log(model.predict(tf.zeros([1, 40], 'int32')).shape.join());";
      try {
        expect(await run(`${program}\n${use}`)).to.match(/^2 replaced, 0 left\n1,40,64$/m);
      } finally {
        close();
      }
    });

    it('Node, on WebGPU', async function () {
      const env = softwareVulkan();
      if (!env) this.skip();
      expect(await run(await programOf('node.md'), env)).to.match(/^32768$/m);
    });
  });

  describe('Chromium', () => {
    let browser: Browser;
    let server: PreviewServer;
    before(async () => {
      browser = await chromium.launch({executablePath: findChromium(), args: softwareFlags});
      // Serves the project as any static server does.
      server = await preview({root: project.folder, configFile: false, logLevel: 'error', build: {outDir: '.'}});
    });
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    /** Opens a page of the project and returns what it left in `measured`, and what it printed or threw. */
    async function open<T>(path: string): Promise<{measured: T; messages: string[]}> {
      const page = await browser.newPage();
      const messages: string[] = [];
      page.on('console', (message) => messages.push(message.text()));
      page.on('pageerror', ({message}) => messages.push(message));
      await page.goto(new URL(path, server.resolvedUrls!.local[0]).href);
      const measured = await page.evaluate(() => (globalThis as unknown as {measured: T}).measured);
      await page.close();
      return {measured, messages};
    }

    it('a Vite app, built', async () => {
      await project.node('node_modules/vite/bin/vite.js', 'build', '--base', './', '--outDir', 'vite_app');
      const {measured, messages} = await open<Record<string, Measured>>('vite_app/index.html');
      await expectAttention(measured, ['cpu', 'webgl', 'webgpu']);
      expect(messages.join('\n')).not.to.match(/already registered/);
    });

    it('Vite apps of one other entry each: kernels and the layer are registered', async () => {
      const has = (name: string) => `Boolean(tf.getKernel('${name}', 'cpu'))`;
      const apps = {
        layers: `import {usePBSAttention} from 'tfjs-pbs-attention/layers'; window.used = usePBSAttention;`,
        graph: `import {registerPBSAttentionOp} from 'tfjs-pbs-attention/graph'; registerPBSAttentionOp();`,
        bare: `import 'tfjs-pbs-attention/layers';`,
      };
      for (const [name, code] of Object.entries(apps)) {
        const folder = join(project.folder, `app_${name}`);
        await mkdir(folder);
        await writeFile(join(folder, 'index.html'), '<!doctype html><script type="module" src="app.js"></script>');
        await writeFile(
          join(folder, 'app.js'),
          `import * as tf from '@tensorflow/tfjs-core'; import '@tensorflow/tfjs-backend-cpu'; ${code}
          const {classNameMap} = tf.serialization.SerializationMap.getMap();
          window.measured = {
            kernels: ${has('PBSAttention')} && ${has('FlashAttention')},
            layer: 'PBSAttention' in classNameMap,
          };`,
        );
        await project.node(
          'node_modules/vite/bin/vite.js',
          'build',
          `app_${name}`,
          '--base',
          './',
          '--outDir',
          'built',
        );
        const {measured} = await open<object>(`app_${name}/built/index.html`);
        expect(measured, name).to.deep.equal({kernels: true, layer: name !== 'graph'});
      }
    });

    /** A page without a bundler: script tags in that order, then the code of its user. */
    async function openScripts<T>(scripts: string[], code: string) {
      const tags = scripts.map((path) => `<script src="/node_modules/${path}"></script>`);
      const user = `<script type="module">import {measure} from '/measure.js'; ${code}</script>`;
      await writeFile(
        join(project.folder, 'page.html'),
        `<!doctype html><meta charset="utf-8">${tags.join('')}${user}`,
      );
      return open<T>('page.html');
    }

    const core = '@tensorflow/tfjs-core/dist/tf-core.min.js';
    const [cpu, webgl, webgpu] = ['cpu', 'webgl', 'webgpu'].map(
      (name) => `@tensorflow/tfjs-backend-${name}/dist/tf-backend-${name}.min.js`,
    );
    const ours = async () => {
      const {unpkg, jsdelivr} = JSON.parse(
        await readFile(join(project.folder, 'node_modules/tfjs-pbs-attention/package.json'), 'utf8'),
      );
      expect(jsdelivr).to.equal(unpkg);
      return join('tfjs-pbs-attention', unpkg);
    };

    it('script tags: backends after the bundle; registerWebGPUBackend', async () => {
      const {measured} = await openScripts<Record<string, Measured>>(
        [core, await ours(), webgpu],
        "window.measured = tf.registerWebGPUBackend().then(() => measure(tf, tf, ['webgpu']));",
      );
      await expectAttention(measured, ['webgpu']);
    });

    it('script tags: backends before the bundle; the bundle twice', async () => {
      const {measured, messages} = await openScripts<Record<string, Measured>>(
        [core, webgl, cpu, await ours(), await ours()],
        "window.measured = measure(tf, tf, ['cpu', 'webgl']);",
      );
      await expectAttention(measured, ['cpu', 'webgl']);
      expect(messages.join('\n')).not.to.match(/already registered/);
    });

    it('script tags: the bundle has a source map with the sources', async () => {
      const file = join(project.folder, 'node_modules', await ours());
      const name = /\/\/# sourceMappingURL=(.+)/.exec(await readFile(file, 'utf8'))?.[1];
      const {sources, sourcesContent} = JSON.parse(await readFile(join(file, '..', name!), 'utf8'));
      const index = sources.findIndex((path: string) => path.endsWith('src/ops/pbs_attention.ts'));
      expect(sourcesContent[index]).to.equal(
        await readFile(new URL('../../src/ops/pbs_attention.ts', import.meta.url), 'utf8'),
      );
    });

    it('script tags: says what is missing', async () => {
      const {messages} = await openScripts([await ours()], '');
      expect(messages).to.include.members([
        'tfjs-pbs-attention: found no TensorFlow.js in the global tf; takes a page that loads @tensorflow/tfjs-core or ' +
          '@tensorflow/tfjs by a script tag before this one.',
      ]);
      const register = 'window.measured = tf.registerWebGPUBackend().catch(({message}) => message);';
      const {measured} = await openScripts<string>([core, await ours()], register);
      expect(measured).to.match(/^registerWebGPUBackend: got no tf.WebGPUBackend;/);
    });
  });
});

/** tfjs greets users of Node on the standard output. */
function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)!;
}
