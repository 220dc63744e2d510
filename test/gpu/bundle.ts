import {copyFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';
import {bundleBrowserTests} from '../setup/browser_bundle';
import {OP_FOLDERS, testFiles} from '../setup/test_files';

/**
 * Bundles the tests for a GPU host that has no node_modules; both commands run in the repository's root:
 * the kernel tests with mocha for Node with Dawn, `node build/gpu/tests.mjs`, with
 * `--fuzz-minutes N` random calls alone; and the browser tests for Chromium,
 * `node build/gpu/chromium.mjs`, with build/gpu/browser-tests.js and build/gpu/mocha.js; and what asks on the demo's page,
 * `node build/gpu/demo.mjs` in a book's fact, `node build/gpu/chat.mjs` in the chat; and `npm run fuzz`, `node build/gpu/fuzz.mjs`.
 */
const root = fileURLToPath(new URL('../..', import.meta.url));
const forNode = {
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  // Packages in CommonJS inside an ES module still call require.
  banner: {js: "import {createRequire as cr} from 'node:module'; const require = cr(import.meta.url);"},
  // The CPU backend registers itself on import, but marks its build for Node as free of side effects.
  ignoreAnnotations: true,
  logLevel: 'warning',
} satisfies esbuild.BuildOptions;
// Real models, where REAL_MODELS names their folder.
const tests = [
  ...[...OP_FOLDERS, 'runner'].flatMap((folder) => testFiles(folder, 'browser')),
  'test/real/logits.node.test.ts',
];
await esbuild.build({
  stdin: {
    contents: `
      import './test/setup/gpu_arguments.ts';
      import {mocha} from './test/setup/mocha.ts';
      import './test/setup/dawn.ts';
      ${tests.map((file) => `import './${file}';`).join('\n')}
      mocha.run((failed) => process.exit(failed > 0 ? 1 : 0));`,
    resolveDir: root,
  },
  ...forNode,
  outfile: `${root}/build/gpu/tests.mjs`,
  external: ['webgpu'],
});

await bundleBrowserTests('build/gpu/browser-tests.js');
copyFileSync(`${root}/node_modules/mocha/mocha.js`, `${root}/build/gpu/mocha.js`);
await esbuild.build({
  ...forNode,
  entryPoints: {
    ...Object.fromEntries(['chromium', 'demo', 'chat'].map((name) => [name, `${root}/test/gpu/${name}.ts`])),
    fuzz: `${root}/test/fuzz/command.ts`,
    fuzz_child: `${root}/test/fuzz/child.ts`,
  },
  outdir: `${root}/build/gpu`,
  outExtension: {'.js': '.mjs'},
  external: ['playwright-core'],
});
