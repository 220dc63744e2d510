import {fileURLToPath} from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The gradients of tfjs-core's own ops: in a bundle tfjs-layers, which registers them, would bring a second tfjs-core. */
const alias = {'@tensorflow/tfjs-layers': '@tensorflow/tfjs-core/dist/register_all_gradients'};

/** Loaded when it is needed: the packed command, which holds this file too, runs where there is no bundler. */
const loadEsbuild = async () => (await import('esbuild')).default;

/** The page's script, for Chromium. */
export async function bundlePage(): Promise<string> {
  const esbuild = await loadEsbuild();
  const {outputFiles} = await esbuild.build({
    entryPoints: [`${root}/bench/browser/page.ts`],
    bundle: true,
    format: 'iife',
    target: 'es2022',
    write: false,
    alias,
    logLevel: 'error',
  });
  return outputFiles[0].text;
}

/** A command as one file for Node, for a host without node_modules. */
export async function bundleCommand(entry: string, outfile: string): Promise<void> {
  const esbuild = await loadEsbuild();
  await esbuild.build({
    entryPoints: [`${root}/${entry}`],
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    outfile,
    alias,
    // Packages in CommonJS inside an ES module still call require.
    banner: {js: "import {createRequire as cr} from 'node:module'; const require = cr(import.meta.url);"},
    // These come with the host's kit, or from a path; the bundler and what draws pictures are not needed there.
    external: ['webgpu', 'onnxruntime-node', 'playwright-core', 'esbuild', 'canvas'],
    ignoreAnnotations: true,
    logLevel: 'error',
  });
}
