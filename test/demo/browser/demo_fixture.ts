import {execFileSync} from 'node:child_process';
import {mkdtempSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {tinyConfig, tinyTensors, writeSafetensors} from '../../runner/llama/tiny/random_checkpoint';

const root = fileURLToPath(new URL('../../..', import.meta.url));

/** Builds the page into a folder. */
export function buildDemo(folder: string): void {
  // In a process of its own: beside mocha's, Vite does not find a module of its own.
  execFileSync('npx', ['vite', 'build', 'demo', '--outDir', folder, '--logLevel', 'error'], {cwd: root});
}

export interface TinyForm {
  /** Default: 512 tokens. */
  contextLength?: number;
  /** A form of chats. Default: none. */
  template?: string;
}

/**
 * A random model that answers nonsense within a second, with the demo's tokenizer. In a folder of its own: Chromium takes no notice when
 * the same paths are set again.
 *
 * @returns the paths of its files, the weights last.
 */
export function tinyCheckpoint(folder: string, {contextLength = 512, template}: TinyForm = {}): string[] {
  const place = mkdtempSync(join(folder, 'model-'));
  const config = {...tinyConfig, vocab_size: 8192, max_position_embeddings: contextLength};
  const files: Array<[string, string | Uint8Array]> = [
    ['config.json', JSON.stringify(config)],
    ['tokenizer.json', readFileSync(join(root, 'demo/public/model/tokenizer.json'))],
    ...(template === undefined
      ? []
      : [['tokenizer_config.json', JSON.stringify({chat_template: template})] satisfies [string, string]]),
    ['model.safetensors', new Uint8Array(writeSafetensors(tinyTensors(config)))],
  ];
  return files.map(([name, content]) => {
    writeFileSync(join(place, name), content);
    return join(place, name);
  });
}

/** A PDF with a page for each text, a line of it for each of its lines; without a text a page is blank, as a scanned one. */
export function writePDF(pages: readonly string[]): Buffer {
  const objects = ['<< /Type /Catalog /Pages 2 0 R >>', '', '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>'];
  const kids = pages.map((text) => {
    const lines = text.split('\n').map((line) => `(${line.replace(/[\\()]/g, '\\$&')}) Tj T*`);
    const content = text === '' ? '' : `BT /F1 12 Tf 14 TL 72 720 Td ${lines.join(' ')} ET`;
    objects.push(`<< /Length ${content.length} >>\nstream\n${content}\nendstream`);
    const resources = '/Resources << /Font << /F1 3 0 R >> >>';
    objects.push(
      `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] ${resources} /Contents ${objects.length} 0 R >>`,
    );
    return `${objects.length} 0 R`;
  });
  objects[1] = `<< /Type /Pages /Count ${kids.length} /Kids [${kids.join(' ')}] >>`;
  let file = '%PDF-1.4\n';
  const places = objects.map((object, index) => {
    const at = file.length;
    file += `${index + 1} 0 obj\n${object}\nendobj\n`;
    return `${String(at).padStart(10, '0')} 00000 n \n`;
  });
  const table = `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${places.join('')}`;
  const trailer = `trailer\n<< /Size ${objects.length + 1} /Root 1 0 R >>\nstartxref\n${file.length}\n%%EOF\n`;
  return Buffer.from(file + table + trailer, 'latin1');
}
