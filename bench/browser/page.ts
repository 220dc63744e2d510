import {runCases} from '../cases/run_cases';
import type {CaseOptions} from '../options';
import type {Run} from '../results';
import {openWebGPU} from '../webgpu/device';

/** What the command passes into the page. */
export interface PageRequest {
  options: CaseOptions;
  about: Pick<Run, 'command' | 'host' | 'versions'>;
}

declare global {
  interface Window {
    runBench: (request: PageRequest) => Promise<void>;
    /** Given by the command: shows a line, keeps what there is so far. */
    benchLog: (line: string) => void;
    benchSave: (run: Run) => void;
  }
}

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
  await runCases(await openWebGPU(), options, place, about);
};
