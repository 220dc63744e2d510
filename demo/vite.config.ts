import {readdirSync, readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {defineConfig, type Plugin} from 'vite';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The encodings by which pdf.js reads texts in Chinese, Japanese and Korean: each a file, fetched when a PDF names it. */
function pdfEncodings(): Plugin {
  const folder = join(dirname(createRequire(import.meta.url).resolve('pdfjs-dist/package.json')), 'cmaps');
  return {
    name: 'pdf-encodings',
    generateBundle() {
      for (const name of readdirSync(folder)) {
        this.emitFile({type: 'asset', fileName: `cmaps/${name}`, source: readFileSync(join(folder, name))});
      }
    },
  };
}

export default defineConfig({
  // Two pages: what is not there is a 404, and not one of them.
  appType: 'mpa',
  plugins: [pdfEncodings()],
  // Relative, so that the built page also works from a folder of any web server.
  base: './',
  build: {
    outDir: here('../build/demo'),
    emptyOutDir: true,
    target: 'es2022',
    // TensorFlow.js with its three backends is one large chunk, loaded once and from localhost.
    chunkSizeWarningLimit: 4000,
    rolldownOptions: {input: {page: here('index.html'), ask: here('ask/index.html')}},
  },
  preview: {port: 4173},
});
