import {copyFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';
import {bundleBrowserTests} from '../setup/browser_bundle';
import {OP_FOLDERS, testFiles} from '../setup/test_files';

/**
 * Bundles the tests for a GPU host that has no node_modules; both commands run in the repository's root:
 * the kernel tests with mocha for Node with Dawn, `node build/gpu/tests.mjs`; and the browser tests for Chromium,
 * `node build/gpu/chromium.mjs`, with build/gpu/browser-tests.js and build/gpu/mocha.js; and what asks on the demo's page,
 * `node build/gpu/demo.mjs` in a book's fact, `node build/gpu/chat.mjs` in the chat.
 */
const root = fileURLToPath(new URL('../..', import.meta.url));
// Real models, where REAL_MODELS names their folder.
const tests = [
  ...[...OP_FOLDERS, 'runner'].flatMap((folder) => testFiles(folder, 'browser')),
  'test/real/logits.node.test.ts',
];
await esbuild.build({
  stdin: {
    contents: `
      import {mocha} from './test/setup/mocha.ts';
      import './test/setup/dawn.ts';
      ${tests.map((file) => `import './${file}';`).join('\n')}
      mocha.run((failed) => process.exit(failed > 0 ? 1 : 0));`,
    resolveDir: root,
  },
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  outfile: `${root}/build/gpu/tests.mjs`,
  // Packages in CommonJS inside an ES module still call require.
  banner: {js: "import {createRequire as cr} from 'node:module'; const require = cr(import.meta.url);"},
  external: ['webgpu'],
  // The CPU backend registers itself on import, but marks its build for Node as free of side effects.
  ignoreAnnotations: true,
  logLevel: 'warning',
});

await bundleBrowserTests('build/gpu/browser-tests.js');
copyFileSync(`${root}/node_modules/mocha/mocha.js`, `${root}/build/gpu/mocha.js`);
for (const name of ['chromium', 'demo', 'chat']) {
  await esbuild.build({
    entryPoints: [`${root}/test/gpu/${name}.ts`],
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    outfile: `${root}/build/gpu/${name}.mjs`,
    external: ['playwright-core'],
    logLevel: 'warning',
  });
}
