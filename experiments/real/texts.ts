import {readdirSync, readFileSync, statSync} from 'node:fs';
import {basename, join} from 'node:path';
import type {Tokenizer} from '@huggingface/tokenizers';
import {encode} from '../../runner/tokenizer';

/** A text to read: a file, or all TypeScript of a folder, from some character on. */
export interface TextSource {
  /** As it stands in tables. */
  name: string;
  path: string;
  start: number;
}

/** Two of the demo's books and this repository's own source. */
export const DEFAULT_TEXTS = ['dubliners', 'sense-and-sensibility']
  .map((book) => `demo/public/books/${book}.txt`)
  .concat('src');

/** `PATH` or `PATH@CHARACTERS`. */
export function parseText(text: string): TextSource | undefined {
  const [, path, start] = /^(.+?)(?:@(\d+))?$/.exec(text) ?? [];
  if (path === undefined) return undefined;
  const stem = basename(path).replace(/\.\w+$/, '');
  return {name: start === undefined ? stem : `${stem}@${start}`, path, start: Number(start ?? 0)};
}

/** Characters a token, at most: enough text for a length, and not much more, since encoding takes seconds. */
const CHARACTERS = 6;

/** The first tokens of a text. */
export function tokensOf(tokenizer: Tokenizer, source: TextSource, length: number): number[] {
  const ids = encode(tokenizer, readText(source).slice(0, CHARACTERS * length + 1000));
  if (ids.length < length) throw new Error(`--texts: ${source.path} has ${ids.length} tokens; asked for ${length}`);
  return ids.slice(0, length);
}

export function readText({path, start}: TextSource): string {
  if (!statSync(path).isDirectory()) return readFileSync(path, 'utf8').slice(start);
  const files = readdirSync(path, {recursive: true, encoding: 'utf8'}).filter((name) => name.endsWith('.ts'));
  return files
    .sort()
    .map((name) => readFileSync(join(path, name), 'utf8'))
    .join('\n')
    .slice(start);
}
