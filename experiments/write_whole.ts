import {mkdirSync, renameSync, writeFileSync} from 'node:fs';
import {dirname} from 'node:path';

/** Writes a file in one step: half of one would lose what `--continue` goes on from. */
export function writeWhole(path: string, text: string): void {
  mkdirSync(dirname(path), {recursive: true});
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}
