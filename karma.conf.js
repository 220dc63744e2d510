import {readdirSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';
import {findChromium, softwareFlags} from './test/browser.ts';

const root = fileURLToPath(new URL('.', import.meta.url));
const bundle = 'build/test/karma.js';

/** Test files of a folder, as import statements. */
export function importTests(...folders) {
  return folders
    .flatMap((folder) =>
      readdirSync(new URL(folder, import.meta.url))
        .filter((file) => file.endsWith('.test.ts'))
        .map((file) => `import './${folder}/${file}';`),
    )
    .join('\n');
}

/** The tests that need a browser: kernels and the model on WebGPU. Run by `npm test`, which needs tsx for the imports. */
export default async function configure(config) {
  process.env.CHROME_BIN = findChromium();
  await esbuild.build({
    stdin: {
      contents: `import './test/setup/karma.ts';\n${importTests('test/kernels', 'test/model')}`,
      resolveDir: root,
    },
    bundle: true,
    sourcemap: 'inline',
    format: 'iife',
    target: 'es2022',
    outfile: bundle,
    absWorkingDir: root,
    logLevel: 'error',
  });
  config.set({
    basePath: root,
    frameworks: ['mocha'],
    files: [
      bundle,
      {pattern: 'test/golden/*', included: false, watched: false},
      {pattern: 'test/model/*.json', included: false, watched: false},
      {pattern: 'demo/public/**/*', included: false, watched: false},
    ],
    browsers: ['SoftwareGPU'],
    customLaunchers: {SoftwareGPU: {base: 'ChromeHeadless', flags: softwareFlags}},
    client: {mocha: {timeout: 120_000, grep: process.env.TEST_GREP ?? ''}},
    reporters: ['progress'],
    singleRun: true,
    autoWatch: false,
    // A software adapter computes for minutes without a word.
    browserNoActivityTimeout: 600_000,
    browserDisconnectTimeout: 30_000,
    pingTimeout: 600_000,
  });
}
