import {fileURLToPath} from 'node:url';
import {findChromium, softwareFlags} from './hosts/chromium.ts';
import {bundleBrowserTests} from './test/setup/browser_bundle.ts';

const root = fileURLToPath(new URL('.', import.meta.url));
const bundle = 'build/test/karma.js';

/** The tests that need a browser: kernels and the model on WebGPU and WebGL. Run by `npm test`, which needs tsx for the imports. */
export default async function configure(config) {
  process.env.CHROME_BIN = findChromium();
  await bundleBrowserTests(bundle);
  config.set({
    basePath: root,
    frameworks: ['mocha'],
    files: [
      bundle,
      {pattern: 'test/golden/*', included: false, watched: false},
      {pattern: 'test/runner/**/*.json', included: false, watched: false},
      {pattern: 'test/runner/**/*.safetensors', included: false, watched: false},
      {pattern: 'test/runner/**/*.gguf', included: false, watched: false},
      {pattern: 'demo/public/**/*', included: false, watched: false},
    ],
    browsers: ['SoftwareGPU'],
    customLaunchers: {
      SoftwareGPU: {
        base: 'ChromeHeadless',
        // The last two for tests that look at the heap.
        flags: [...softwareFlags, '--js-flags=--expose-gc', '--enable-precise-memory-info'],
      },
    },
    client: {mocha: {timeout: 120_000}},
    reporters: ['dots'],
    singleRun: true,
    // TEST_GREP may name tests that are not here.
    failOnEmptyTestSuite: !process.env.TEST_GREP,
    autoWatch: false,
    // A software adapter computes for minutes without a word.
    browserNoActivityTimeout: 600_000,
    browserDisconnectTimeout: 30_000,
    pingTimeout: 600_000,
  });
}
