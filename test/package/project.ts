import {execFile} from 'node:child_process';
import {cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import esbuild from 'esbuild';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

/** An empty project outside the repository, so that nothing of the repository is found by accident. */
export interface Project {
  folder: string;
  /** The file that `npm pack` made. */
  tarball: string;
  /** Runs Node on a file of the project. Rejects if it fails. */
  node(file: string, ...args: string[]): Promise<{stdout: string; stderr: string}>;
  remove(): Promise<void>;
}

/**
 * Packs this package, building it, and installs it into a new project with the files of `consumer`
 * and `measure.ts`. tfjs, Vite and Dawn are linked
 * from the repository's node_modules: no registry is asked, so this works offline, with the versions of the lock file.
 */
export async function createProject(): Promise<Project> {
  const folder = await mkdtemp(join(tmpdir(), 'tfjs-pbs-attention-'));
  const remove = () => rm(folder, {recursive: true, force: true});
  try {
    await run('npm', ['pack', '--pack-destination', folder], {cwd: root});
    const tarball = join(folder, (await readdir(folder))[0]);
    await writeFile(join(folder, 'package.json'), JSON.stringify({private: true, type: 'module'}));
    // Peers are linked below; npm would ask the registry for them.
    await run('npm', ['install', '--offline', '--legacy-peer-deps', '--silent', tarball], {cwd: folder});
    await mkdir(join(folder, 'node_modules'), {recursive: true});
    for (const name of ['@tensorflow', 'vite', 'webgpu']) {
      await symlink(join(root, 'node_modules', name), join(folder, 'node_modules', name));
    }
    await cp(join(root, 'test/package/consumer'), folder, {recursive: true});
    const {code} = await esbuild.transform(await readFile(join(root, 'test/package/measure.ts')), {loader: 'ts'});
    await writeFile(join(folder, 'measure.js'), code);
    return {folder, tarball, node: (...args) => run(process.execPath, args, {cwd: folder}), remove};
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Runs a command of the repository's node_modules; rejects with what it printed if it fails. */
export async function check(command: string, ...args: string[]): Promise<void> {
  await run(join(root, 'node_modules/.bin', command), args, {cwd: root}).catch((error) => {
    throw new Error(`${command} ${args.join(' ')}\n${error.stdout}${error.stderr}`);
  });
}
