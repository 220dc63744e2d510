import {fileURLToPath} from 'node:url';
import {defineConfig} from 'vite';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
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
