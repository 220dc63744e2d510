import {readdirSync} from 'node:fs';
import {fileURLToPath} from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Test files below a folder of `test/`, by their path from the root. `NAME.test.ts` runs wherever its folder is run,
 * `NAME.node.test.ts` in Node alone.
 */
export function testFiles(folder: string, place: 'node' | 'browser'): string[] {
  return readdirSync(`${root}/test/${folder}`, {recursive: true, encoding: 'utf8'})
    .filter((name) => name.endsWith('.test.ts') && (place === 'node' || !name.endsWith('.node.test.ts')))
    .map((name) => `test/${folder}/${name}`)
    .sort();
}

/** What runs on every backend. */
export const OP_FOLDERS = ['attention', 'ops', 'kernels', 'tuning'];
