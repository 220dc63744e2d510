import {readdirSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import esbuild from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Bundles the tests that need a browser, for a page that has mocha's functions. */
export async function bundleBrowserTests(outfile: string): Promise<void> {
  const imports = ['test/kernels', 'test/model', 'test/layers', 'test/graph', 'test/examples'].flatMap((folder) =>
    readdirSync(`${root}/${folder}`)
      .filter((file) => file.endsWith('.test.ts'))
      .map((file) => `import './${folder}/${file}';`),
  );
  await esbuild.build({
    stdin: {contents: ["import './test/setup/karma.ts';", ...imports].join('\n'), resolveDir: root},
    bundle: true,
    sourcemap: 'inline',
    format: 'iife',
    target: 'es2022',
    outfile,
    absWorkingDir: root,
    logLevel: 'error',
  });
}
