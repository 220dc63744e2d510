import {statSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import {bundleCommand} from '../bench/bundle';

/**
 * Packs the experiments for a GPU host that has neither node_modules nor a network: build/gpu/experiments.mjs. It writes
 * JSON and prints tables there; `npm run experiments -- EXPERIMENT --report` draws the plots from the JSON elsewhere.
 */
const outfile = 'build/gpu/experiments.mjs';
process.chdir(fileURLToPath(new URL('..', import.meta.url)));
await bundleCommand('experiments/run.ts', outfile);
console.log(`${(statSync(outfile).size / 1e6).toFixed(1)} MB  ${outfile}`);
