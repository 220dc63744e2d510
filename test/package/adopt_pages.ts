import {execFile} from 'node:child_process';
import {existsSync, realpathSync} from 'node:fs';
import {readFile, writeFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import type {AddressInfo} from 'node:net';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import esbuild from 'esbuild';
import {findChromium} from '../../hosts/chromium';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The first program of a page in docs/adopt, as a module for Node. */
export async function programOf(page: string): Promise<string> {
  const text = await readFile(join(root, 'docs/adopt', page), 'utf8');
  const [, code] = /^```(?:js|ts)\n([^]*?)^```$/m.exec(text)!;
  return (await esbuild.transform(code, {loader: 'ts'})).code;
}

/** What a program prints in the project, with variables besides those of this process. */
export async function runProgram(folder: string, code: string, env?: NodeJS.ProcessEnv): Promise<string> {
  await writeFile(join(folder, 'adopt.mjs'), code);
  const options = {cwd: folder, env: {...process.env, ...env}};
  return (await promisify(execFile)(process.execPath, ['adopt.mjs'], options)).stdout;
}

/** On the CPU backend, which needs no browser. */
export const onCpu = (program: string) => program.replaceAll('webgpu', 'cpu');

/** Where Chromium keeps its Vulkan in software, which serves Dawn in Node too; undefined where it comes without. */
export function softwareVulkan(): NodeJS.ProcessEnv | undefined {
  const folders = [dirname(realpathSync(findChromium())), '/usr/lib/chromium'];
  const folder = folders.find((name) => existsSync(join(name, 'vk_swiftshader_icd.json')));
  if (folder === undefined) return undefined;
  return {VK_DRIVER_FILES: join(folder, 'vk_swiftshader_icd.json'), LD_LIBRARY_PATH: folder};
}

/** Serves the example's graph model, as a web host does. */
export async function serveModel(): Promise<{url: string; close: () => void}> {
  const server = createServer(({url}, response) => {
    readFile(join(root, 'examples/graph_model/model', url!)).then(
      (body) => response.end(body),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  const {port} = server.address() as AddressInfo;
  return {url: `http://localhost:${port}/model.json`, close: () => server.close()};
}
