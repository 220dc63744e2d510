import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {gzipSync} from 'node:zlib';
import {build} from 'vite';

/** `npm run build:demo`: a folder that any web host can serve, and how large it is. */
const root = fileURLToPath(new URL('.', import.meta.url));
const out = fileURLToPath(new URL('../build/demo', import.meta.url));
await build({root, logLevel: 'warn'});

const files = readdirSync(out, {recursive: true, withFileTypes: true})
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name));
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);

/** Bytes as they are, and as a host sends them that compresses. */
function size(paths: string[]): string {
  const contents = paths.map((path) => readFileSync(path));
  const plain = contents.reduce((sum, bytes) => sum + bytes.length, 0);
  const zipped = contents.reduce((sum, bytes) => sum + gzipSync(bytes).length, 0);
  return `${megabytes(plain)} MB, ${megabytes(zipped)} MB with gzip`;
}

const under = (folder: string) => files.filter((path) => path.startsWith(join(out, folder)));
const pdf = [...under('cmaps'), ...under('assets/pdf_')];
const data = [...under('model'), ...under('books'), ...pdf];
console.log(`build/demo: ${files.length} files, ${size(files)}
  page    ${size(files.filter((path) => !data.includes(path)))}
  model   ${size(under('model'))}
  books   ${size(under('books'))}
  PDFs    ${size(pdf)}, loaded by who opens one`);
