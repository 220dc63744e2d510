import {statSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';

/**
 * Packs the experiments for a GPU host that has neither node_modules nor a network: build/gpu/experiments.mjs. It writes
 * JSON and prints tables there; `npm run experiments -- EXPERIMENT --report` draws the plots from the JSON elsewhere.
 */
const outfile = 'build/gpu/experiments.mjs';
process.chdir(fileURLToPath(new URL('..', import.meta.url)));
await esbuild.build({
  entryPoints: ['experiments/run.ts'],
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  outfile,
  // Packages in CommonJS inside an ES module still call require.
  banner: {js: "import {createRequire as cr} from 'node:module'; const require = cr(import.meta.url);"},
  // Dawn comes with the host's kit; plots are drawn elsewhere.
  external: ['webgpu', 'canvas'],
  ignoreAnnotations: true,
  // The class names of programs are what tells their stages apart.
  keepNames: true,
  logLevel: 'error',
});
console.log(`${(statSync(outfile).size / 1e6).toFixed(1)} MB  ${outfile}`);
