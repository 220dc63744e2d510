import {readdirSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Bundles the tests of tfjs-layers for a worker of Node. They need files that the package does not export, and Node would
 * take those beside the package's own bundle, so that every class of layers would exist twice.
 */
export async function bundleLayersTests(outfile: string): Promise<void> {
  const tests = readdirSync(`${root}/test/layers`).filter((name) => name.endsWith('.test.ts'));
  await esbuild.build({
    stdin: {
      contents: `
        import {parentPort} from 'node:worker_threads';
        import {mocha} from './test/setup/mocha.ts';
        import './test/setup/node.ts';
        ${tests.map((name) => `import './test/layers/${name}';`).join('\n')}
        const runner = mocha.run((failed) => parentPort.postMessage({passed: runner.stats.passes, failed}));`,
      resolveDir: root,
    },
    bundle: true,
    sourcemap: 'inline',
    platform: 'node',
    mainFields: ['module', 'main'],
    format: 'esm',
    target: 'node20',
    outfile,
    absWorkingDir: root,
    external: ['mocha', 'chai'],
    // Packages in CommonJS inside an ES module still call require.
    banner: {js: "import {createRequire as cr} from 'node:module'; const require = cr(import.meta.url);"},
    // The CPU backend registers itself on import, but marks its build as free of side effects.
    ignoreAnnotations: true,
    logLevel: 'error',
  });
}
