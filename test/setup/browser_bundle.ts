import {renameSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';
import {OP_FOLDERS, testFiles} from './test_files';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Bundles the tests that need a browser, for a page that has mocha's functions. */
export async function bundleBrowserTests(outfile: string): Promise<void> {
  const imports = [...OP_FOLDERS, 'runner', 'layers', 'graph', 'examples']
    .flatMap((folder) => testFiles(folder, 'browser'))
    .map((file) => `import './${file}';`);
  // Put into place in one step: another process may bundle the same, and its browser be reading.
  const unfinished = `${outfile}.${process.pid}`;
  await esbuild.build({
    stdin: {contents: ["import './test/setup/karma.ts';", ...imports].join('\n'), resolveDir: root},
    bundle: true,
    sourcemap: 'inline',
    format: 'iife',
    target: 'es2022',
    outfile: unfinished,
    define: Object.fromEntries(
      ['FAILURES', 'SOAK', 'LACK_OF_MEMORY', 'FORM_CASES', 'FORM_MINUTES', 'FORM_SEED', 'MATRIX_UNITS'].map((name) => [
        `process.env.${name}`,
        JSON.stringify(process.env[name] ?? ''),
      ]),
    ),
    absWorkingDir: root,
    logLevel: 'error',
  });
  renameSync(`${root}/${unfinished}`, `${root}/${outfile}`);
}
