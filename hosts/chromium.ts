import {execFileSync, spawnSync} from 'node:child_process';
import {accessSync, constants} from 'node:fs';
import {delimiter, join} from 'node:path';

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'];
const macPaths = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
];

/**
 * Path of Chrome or Chromium: `CHROME_BIN`, else `CHROME` (which GPU hosts set), else the common names on the PATH. Where
 * there is none, throws and says what to do; with `INSTALL_BROWSER=1` in the environment, and only then, installs Debian's
 * `chromium`.
 */
export function findChromium(): string {
  const found = installedChromium() ?? (process.env.INSTALL_BROWSER === '1' ? installChromium() : undefined);
  if (!found) {
    throw new Error(
      `No browser found. Nothing was installed. One of these helps:
  INSTALL_BROWSER=1 COMMAND            the same command; installs Debian’s chromium by apt-get, as root
  apt-get install chromium             or any other Chrome or Chromium on the PATH
  CHROME_BIN=/path/to/chrome COMMAND   one that is elsewhere`,
    );
  }
  return found;
}

function installedChromium(): string | undefined {
  const {CHROME_BIN, CHROME, PATH = ''} = process.env;
  const named = Object.entries({CHROME_BIN, CHROME}).find(([, path]) => path);
  if (named) {
    const [variable, path] = named as [string, string];
    if (!isExecutable(path)) {
      throw new Error(`${variable} is '${path}', which is not an executable file.`);
    }
    return path;
  }
  const onPath = names.flatMap((name) => PATH.split(delimiter).map((folder) => join(folder, name)));
  return [...onPath, ...macPaths].find(isExecutable);
}

function installChromium(): string | undefined {
  if (process.getuid?.() !== 0 || spawnSync('apt-get', ['--version']).error) {
    throw new Error(
      'INSTALL_BROWSER: found no browser, and can install one by apt-get as root alone; install Chrome or Chromium.',
    );
  }
  console.error('INSTALL_BROWSER: found no browser; apt-get installs Debian’s chromium.');
  const apt = (...args: string[]) =>
    execFileSync('apt-get', args, {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {...process.env, DEBIAN_FRONTEND: 'noninteractive'},
    });
  apt('update', '-qq');
  apt('install', '-y', '-qq', '--no-install-recommends', 'chromium');
  return installedChromium();
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** No look-ups of hosts outside: tests and demos are local. */
const localOnly = [
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
];

/** WebGPU and WebGL2 by SwiftShader, on the CPU: right, slow, and the same on every machine. */
export const softwareFlags = [
  ...localOnly,
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--enable-features=Vulkan',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
  '--ignore-gpu-blocklist',
];

/** WebGPU and WebGL2 by the machine's GPU, through Vulkan, on a Linux host without a display. */
export const gpuFlags = [
  ...localOnly,
  '--no-sandbox',
  '--disable-gpu-sandbox',
  '--use-angle=vulkan',
  '--enable-features=Vulkan',
  '--disable-vulkan-surface',
  '--enable-unsafe-webgpu',
  '--ignore-gpu-blocklist',
];
