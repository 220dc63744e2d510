import {execFileSync} from 'node:child_process';
import {rmSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';
import {build} from 'vite';

/**
 * `npm run build`: `dist/esm` and `dist/cjs`, module by module with declarations, and the bundle for script tags. A new
 * entry of the package is a file in `src` and its lines under `exports` in package.json; nothing here names entries.
 */
const root = fileURLToPath(new URL('.', import.meta.url));
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');

rmSync(`${root}/dist`, {recursive: true, force: true});
for (const project of ['tsconfig.build.json', 'tsconfig.build.cjs.json']) {
  execFileSync(process.execPath, [tsc, '-p', project], {cwd: root, stdio: 'inherit'});
}
// The package is of type module; this makes the .js and the .d.ts files of the folder CommonJS.
writeFileSync(`${root}/dist/cjs/package.json`, `${JSON.stringify({type: 'commonjs'})}\n`);

const tfjs = ['@tensorflow/tfjs-core', '@tensorflow/tfjs-backend-webgpu'];
await build({
  root,
  configFile: false,
  publicDir: false,
  logLevel: 'warn',
  build: {
    outDir: 'dist',
    emptyOutDir: false,
    sourcemap: true,
    target: 'es2022',
    lib: {
      entry: 'src/script_tag/index.ts',
      formats: ['umd'],
      name: 'tf',
      fileName: () => 'tf-pbs-attention.min.js',
    },
    rolldownOptions: {
      external: tfjs,
      output: {
        extend: true,
        // No Symbol.toStringTag for tf.
        generatedCode: {symbols: false},
        globals: Object.fromEntries(tfjs.map((name) => [name, 'tf'])),
      },
    },
  },
});
