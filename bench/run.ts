import {existsSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {openDawn} from '../hosts/dawn';
import {runInBrowser} from './browser/launch';
import type {Place} from './cases/case_runner';
import {runCases} from './cases/run_cases';
import {OnnxPeer} from './onnx/peer';
import {serveOnnxRequests, WORKER_FLAG} from './onnx/worker';
import {type BackendName, type Command, parseCommand, USAGE} from './options';
import {backendOf, report} from './report/report';
import type {Run} from './results';
import {type Summary, summaryOf} from './report/summary';
import {openWebGPU} from './webgpu/device';

/** `npm run bench`, and on a GPU host without node_modules `node build/gpu/bench.mjs`; in the repository's root. */
async function main(): Promise<void> {
  const args = process.argv.slice(2);
  const command = parseCommand(args);
  if (command === 'help') {
    console.log(USAGE);
    return;
  }
  const earlier = command.add.map((path) => JSON.parse(readFileSync(path, 'utf8')) as Run);
  const backend = command.reportOnly ? backendOf(earlier) : command.backend;
  // Said before anything is measured.
  if (!command.reportOnly) backendOf([...earlier, {backend}]);
  const to = paths(command, backend);
  const place: Place = {
    readFile: async (path) => {
      const {buffer, byteOffset, byteLength} = await readFile(path);
      return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
    },
    log: (line) => console.error(line),
    save: (run) => save(to, earlier, run),
  };
  const packed = process.argv[1].endsWith('.mjs');
  const line = [packed ? 'node build/gpu/bench.mjs' : 'npm run bench --', ...args].join(' ');
  if (command.reportOnly) {
    save(to, earlier);
  } else if (command.browser) {
    await runInBrowser(command, place, line);
  } else {
    await runInNode(command, place, line);
  }
  console.log(readFileSync(to.markdown, 'utf8'));
}

async function runInNode({cases}: Command, place: Place, command: string): Promise<void> {
  const onnx = new OnnxPeer();
  openDawn();
  try {
    await runCases(
      await openWebGPU(cases.without),
      cases,
      {...place, askOnnx: (request) => onnx.ask(request)},
      {
        command,
        host: `Node ${process.version} with Dawn`,
        versions: {node: process.version},
      },
    );
  } finally {
    onnx.close();
  }
}

interface Paths {
  json: string;
  markdown: string;
  /** Of runs on WebGPU in Node. */
  summary?: string;
}

function paths({out, browser}: Command, backend: BackendName): Paths {
  const suffix = backend === 'webgl' ? '-webgl' : browser ? '-chromium' : '';
  return out === undefined
    ? {
        json: 'build/bench/results.json',
        markdown: `docs/benchmarks${suffix}.md`,
        ...(suffix === '' && {summary: 'docs/benchmarks/summary.json'}),
      }
    : {json: join(out, 'results.json'), markdown: join(out, 'benchmarks.md'), summary: join(out, 'summary.json')};
}

/** Writes what there is so far; sections and figures that the runs do not have stay as they are in the files. */
function save({json, markdown, summary}: Paths, earlier: readonly Run[], run?: Run): void {
  for (const path of [json, markdown, ...(summary ? [summary] : [])]) {
    mkdirSync(dirname(path), {recursive: true});
  }
  const runs = run ? [...earlier, run] : earlier;
  if (run) writeFileSync(json, `${JSON.stringify(run, undefined, 1)}\n`);
  writeFileSync(markdown, report(runs, textOf(markdown)));
  const before = summary && textOf(summary);
  const figures = summary && summaryOf(runs, before ? (JSON.parse(before) as Summary) : undefined);
  if (figures) writeFileSync(summary, `${JSON.stringify(figures, undefined, 2)}\n`);
}

const textOf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);

if (process.argv[2] === WORKER_FLAG) {
  serveOnnxRequests();
} else {
  try {
    await main();
    // Dawn keeps the process alive.
    process.exit(0);
  } catch (error) {
    console.error(`bench: ${(error as Error).message}`);
    process.exit(1);
  }
}
