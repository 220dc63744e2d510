import {runCases} from '../cases/run_cases';
import type {Device} from '../device';
import type {BackendName, CaseOptions} from '../options';
import type {Run} from '../results';
import {openWebGL} from '../webgl/device';
import {openWebGPU} from '../webgpu/device';

/** What the command passes into the page. */
export interface PageRequest {
  options: CaseOptions;
  about: Pick<Run, 'command' | 'host' | 'versions'>;
}

declare global {
  interface Window {
    /** Opens the backend that `runBench` measures; gives what is wrong with it, if anything. */
    openDevice: (backend: BackendName, without: string[]) => Promise<string | undefined>;
    runBench: (request: PageRequest) => Promise<void>;
    /** Given by the command: shows a line, keeps what there is so far. */
    benchLog: (line: string) => void;
    benchSave: (run: Run) => void;
  }
}

let device: Device;

window.openDevice = async (backend, without) => {
  try {
    device = await (backend === 'webgl' ? openWebGL() : openWebGPU(without));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
};

window.runBench = async ({options, about}) => {
  const place = {
    readFile: async (path: string) => {
      const response = await fetch(`/${path}`);
      if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
      return response.arrayBuffer();
    },
    log: window.benchLog,
    save: window.benchSave,
  };
  await runCases(device, options, place, about);
};
