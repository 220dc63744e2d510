import {mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {expect} from 'chai';

const folder = new URL('shaders/', import.meta.url);

/** Expects a shader's text to be that of its file; with `UPDATE_SHADERS=1` in the environment, writes the file anew. */
export function expectShader(fileName: string, source: string): void {
  const file = new URL(fileName, folder);
  const text = `${source.trim()}\n`;
  if (process.env.UPDATE_SHADERS) {
    mkdirSync(new URL('.', file), {recursive: true});
    writeFileSync(file, text);
  }
  expect(text).to.equal(readFileSync(file, 'utf8'));
}
