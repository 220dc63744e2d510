import {fileURLToPath} from 'node:url';
import Mocha from 'mocha';
import {testFiles} from '../setup/test_files';
import {realModels} from './models';

/**
 * `npm run test:real -- DIR`: what the runner makes of real models, for each of DIR/smollm2.gguf and
 * DIR/qwen2.5-coder-0.5b.gguf that is there.
 */
const root = new URL('../..', import.meta.url);

const [folder] = process.argv.slice(2);
if (!folder) throw new Error('npm run test:real -- DIR, the folder of smollm2.gguf and qwen2.5-coder-0.5b.gguf');
process.env.REAL_MODELS = folder;
if (realModels().length === 0) throw new Error(`${folder} has neither smollm2.gguf nor qwen2.5-coder-0.5b.gguf`);

const mocha = new Mocha({timeout: 600_000, grep: process.env.TEST_GREP});
mocha.addFile(fileURLToPath(new URL('test/setup/node.ts', root)));
testFiles('real', 'node').forEach((file) => mocha.addFile(fileURLToPath(new URL(file, root))));
await mocha.loadFilesAsync();
mocha.run((failed) => process.exit(failed > 0 ? 1 : 0));
