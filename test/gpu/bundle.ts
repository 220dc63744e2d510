import {readdirSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';

/**
 * Bundles the kernel tests with mocha into one file for Node with Dawn, build/gpu/tests.mjs, so that they can run on a
 * GPU host that has neither a browser nor node_modules: `node build/gpu/tests.mjs`, in the repository's root.
 */
const root = fileURLToPath(new URL('../..', import.meta.url));
const tests = readdirSync(`${root}/test/kernels`).filter((name) => name.endsWith('.test.ts'));
await esbuild.build({
  stdin: {
    contents: `
      import {mocha} from './test/gpu/mocha.ts';
      import './test/setup/dawn.ts';
      ${tests.map((name) => `import './test/kernels/${name}';`).join('\n')}
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
