import {execFileSync} from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {bundleCommand, bundlePage} from './bundle';

/**
 * Packs the benchmark for a GPU host that has neither node_modules nor a network: build/gpu/bench.mjs, the script of
 * `--browser`, the benchmarks of a whole prefill (prefill.mjs), of its products (products.mjs), of graph models (graphs.mjs) and of what NaN costs
 * (withheld.mjs) beside it, and ONNX Runtime (where onnxruntime-node is installed, or `ORT_PATH` names it) as .ort/1, .ort/2, … of at
 * most 28 MB each, kept out of git; what is there already stays. There, `. .ort/kit/setup.sh` puts ONNX Runtime together and exports `ORT_PATH`.
 */
const root = fileURLToPath(new URL('..', import.meta.url));
const PART_BYTES = 28_000_000;

process.chdir(root);
await bundleCommand('bench/run.ts', 'build/gpu/bench.mjs');
await bundleCommand('bench/prefill/command.ts', 'build/gpu/prefill.mjs');
await bundleCommand('bench/products/command.ts', 'build/gpu/products.mjs');
await bundleCommand('bench/graphs/command.ts', 'build/gpu/graphs.mjs');
await bundleCommand('bench/withheld/command.ts', 'build/gpu/withheld.mjs');
writeFileSync('build/gpu/bench-page.js', await bundlePage());
const parts = packOnnxRuntime();
const carried = [
  'build/gpu/bench.mjs',
  'build/gpu/prefill.mjs',
  'build/gpu/products.mjs',
  'build/gpu/graphs.mjs',
  'build/gpu/withheld.mjs',
  'build/gpu/bench-page.js',
  ...parts,
];
for (const path of carried) {
  console.log(`${(statSync(path).size / 1e6).toFixed(1).padStart(6)} MB  ${path}`);
}

function packOnnxRuntime(): string[] {
  if (existsSync('.ort/kit/parts')) {
    return Array.from({length: Number(readFileSync('.ort/kit/parts', 'utf8'))}, (_, i) => `.ort/${i + 1}/part`);
  }
  const load = createRequire(import.meta.url);
  let runtime: string;
  try {
    runtime = dirname(load.resolve(join(process.env.ORT_PATH ?? 'onnxruntime-node', 'package.json')));
  } catch {
    console.log('no onnxruntime-node: npm install --no-save --ignore-scripts onnxruntime-node');
    return [];
  }
  const common = dirname(dirname(dirname(createRequire(join(runtime, 'package.json')).resolve('onnxruntime-common'))));
  const stage = mkdtempSync(join(tmpdir(), 'ort-'));
  try {
    const modules = join(stage, 'node_modules');
    for (const path of ['package.json', 'dist', 'bin/napi-v6/linux/x64']) {
      cpSync(join(runtime, path), join(modules, 'onnxruntime-node', path), {
        recursive: true,
        // The providers for CUDA and TensorRT are large and not measured here.
        filter: (source) => !/providers_(cuda|tensorrt|shared)/.test(source),
      });
    }
    cpSync(common, join(modules, 'onnxruntime-common'), {recursive: true});
    return split(stage);
  } finally {
    rmSync(stage, {recursive: true});
  }
}

/** Compresses a folder into parts in .ort, which git leaves alone. */
function split(folder: string): string[] {
  const exclude = execFileSync('git', ['rev-parse', '--git-path', 'info/exclude'], {encoding: 'utf8'}).trim();
  if (!existsSync(exclude) || !readFileSync(exclude, 'utf8').includes('/.ort/')) {
    mkdirSync(dirname(exclude), {recursive: true});
    appendFileSync(exclude, '/.ort/\n');
  }
  rmSync('.ort', {recursive: true, force: true});
  mkdirSync('.ort/kit', {recursive: true});
  const archive = join(tmpdir(), `ort-${process.pid}.tar.xz`);
  execFileSync('tar', ['-C', folder, '-cf', archive, '-I', 'xz -T0 -5', '.']);
  const bytes = readFileSync(archive);
  rmSync(archive);
  const parts: string[] = [];
  for (let start = 0; start < bytes.length; start += PART_BYTES) {
    const path = `.ort/${parts.length + 1}/part`;
    mkdirSync(dirname(path), {recursive: true});
    writeFileSync(path, bytes.subarray(start, start + PART_BYTES));
    parts.push(path);
  }
  writeFileSync('.ort/kit/parts', `${parts.length}\n`);
  cpSync('bench/setup_ort.sh', '.ort/kit/setup.sh');
  return parts;
}
