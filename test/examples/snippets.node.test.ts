import {readFileSync, readdirSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import {expect} from 'chai';
import ts from 'typescript';

/* The examples in README, docs and docstrings compile as TypeScript, with what they leave to the reader declared before them. */

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What an example that does not say so itself is about. */
const context: Record<string, string> = {
  tf: "declare const tf: typeof import('@tensorflow/tfjs-core') & typeof import('@tensorflow/tfjs-layers') & typeof import('@tensorflow/tfjs-converter');",
  query: "declare const query: import('@tensorflow/tfjs-core').Tensor;",
  key: "declare const key: import('@tensorflow/tfjs-core').Tensor;",
  value: "declare const value: import('@tensorflow/tfjs-core').Tensor;",
  samples: "declare const samples: import('tfjs-pbs-attention').AttentionSample[];",
  prompt: 'declare const prompt: number[];',
  runModel:
    "declare function runModel(prompt: number[], options: {attention: import('tfjs-pbs-attention').AttentionOp<import('tfjs-pbs-attention').FlashAttentionOptions>}): Promise<void>;",
  url: 'declare const url: string;',
  model: "declare const model: import('@tensorflow/tfjs-layers').LayersModel;",
  layers:
    "declare const layers: Array<{run(prompt: number[], attention: import('tfjs-pbs-attention').AttentionSampleCollector['attention']): void}>;",
  usePBSAttention: "import {usePBSAttention} from 'tfjs-pbs-attention/layers';",
  MultiHeadAttention: "import {MultiHeadAttention} from 'tfjs-pbs-attention/layers';",
  PBSAttention: "import {PBSAttention} from 'tfjs-pbs-attention/layers';",
  registerWebGPUBackend: "import {registerWebGPUBackend} from 'tfjs-pbs-attention/webgpu';",
  heads: 'declare const heads: number;',
  headDim: 'declare const headDim: number;',
  prefixKey: "declare const prefixKey: import('@tensorflow/tfjs-core').Tensor;",
  prefixValue: "declare const prefixValue: import('@tensorflow/tfjs-core').Tensor;",
  packedKey: "declare const packedKey: import('@tensorflow/tfjs-core').Tensor;",
  packedValue: "declare const packedValue: import('@tensorflow/tfjs-core').Tensor;",
  recentKey: "declare const recentKey: import('@tensorflow/tfjs-core').Tensor;",
  recentValue: "declare const recentValue: import('@tensorflow/tfjs-core').Tensor;",
  rewriteAttention: "import {rewriteAttention} from 'tfjs-pbs-attention/graph';",
};
for (const name of [
  'attentionWithLogSumExp',
  'calibrateAttention',
  'collectAttentionSamples',
  'extendPBSAttentionPlan',
  'flashAttention',
  'mergeAttention',
  'packFloat16',
  'paperOptions',
  'pbsAttention',
  'pbsAttentionDensity',
  'pbsAttentionPlan',
  'tunePBSAttention',
  'useAttentionCalibration',
  'warmUpAttention',
  'attentionPrecision',
]) {
  context[name] = `import {${name}} from 'tfjs-pbs-attention';`;
}

/** Blocks of code of a text, with the line at which each starts. */
function blocksOf(file: string): Array<{name: string; code: string}> {
  const lines = readFileSync(root + file, 'utf8').split('\n');
  // Those of docstrings stand behind an asterisk.
  const text = file.endsWith('.ts') ? lines.map((line) => line.replace(/^ *\* ?/, '')) : lines;
  const blocks: Array<{name: string; code: string}> = [];
  for (let i = 0; i < text.length; ++i) {
    if (!/^```(js|ts)$/.test(text[i])) continue;
    const end = text.indexOf('```', i);
    blocks.push({name: `${file}:${i + 1}`, code: text.slice(i + 1, end).join('\n')});
    i = end;
  }
  return blocks;
}

/** That `load` may be missing, as the types of tfjs's handlers have it, is not for an example to ask. */
const ofHandlers = [2532, 2722];

const isOwn = (code: string, name: string) =>
  new RegExp(`(const|let|function) (\\{[^}]*)?\\b${name}\\b|import [^;]*\\b${name}\\b`).test(code);

describe('examples in the docs', () => {
  const list = (folder: string, ending: string) =>
    readdirSync(root + folder, {recursive: true, encoding: 'utf8'})
      .filter((name) => name.endsWith(ending) && !name.startsWith('api'))
      .map((name) => `${folder}/${name}`);
  const files = ['README.md', ...list('docs', '.md'), ...list('src', '.ts')];
  const blocks = files.flatMap(blocksOf);

  it('compile as TypeScript', function () {
    this.timeout(300_000);
    const {config} = ts.readConfigFile(`${root}tsconfig.json`, (path) => ts.sys.readFile(path));
    const {options} = ts.parseJsonConfigFileContent(config, ts.sys, root);
    const host = ts.createCompilerHost(options);
    const sources = new Map(
      blocks.map(({name, code}, i) => {
        const used = Object.entries(context).filter(
          ([word]) => new RegExp(`\\b${word}\\b`).test(code) && !isOwn(code, word),
        );
        const declared = used.map(([, declaration]) => declaration).join(' ');
        return [`${root}snippet${i}.ts`, {name, text: `${declared}\nexport {};\n${code}`}];
      }),
    );
    const {getSourceFile, fileExists} = host;
    host.getSourceFile = (path, language) => {
      const source = sources.get(path);
      return source ? ts.createSourceFile(path, source.text, language) : getSourceFile(path, language);
    };
    host.fileExists = (path) => sources.has(path) || fileExists(path);
    const program = ts.createProgram([...sources.keys()], {...options, noUnusedLocals: false}, host);
    const errors = [...sources].flatMap(([path, {name}]) =>
      ts
        .getPreEmitDiagnostics(program, program.getSourceFile(path))
        .filter(({code}) => !ofHandlers.includes(code))
        .map(({messageText, code}) => `${name}: TS${code} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`),
    );
    expect(errors.join('\n')).to.equal('');
    expect(sources.size).to.be.above(15);
  });
});
