import {type ChildProcess, fork} from 'node:child_process';
import type {OnnxAnswer, OnnxRequest} from './messages';
import {WORKER_FLAG} from './worker';

/** Longest that a request may take, in milliseconds, before its process is ended. */
const PATIENCE_MS = 120_000;

/** Asks ONNX Runtime in a process of its own, which is started when first asked and again after a crash. */
export class OnnxPeer {
  private worker?: ChildProcess;

  async ask(request: OnnxRequest): Promise<OnnxAnswer> {
    const worker = (this.worker ??= fork(process.argv[1], [WORKER_FLAG], {execArgv: process.execArgv}));
    return new Promise((resolve) => {
      const end = (answer: OnnxAnswer) => {
        clearTimeout(timer);
        worker.off('message', end);
        worker.off('exit', onExit);
        resolve(answer);
      };
      const fail = (failure: string) => {
        this.worker = undefined;
        end({version: 'unknown', failure});
      };
      const onExit = (code: number | null, signal: string | null) => fail(`its process ended with ${signal ?? code}`);
      const timer = setTimeout(() => {
        worker.kill('SIGKILL');
        fail(`no answer after ${PATIENCE_MS / 1000} s`);
      }, PATIENCE_MS);
      worker.once('exit', onExit);
      worker.once('message', end);
      worker.send(request);
    });
  }

  close(): void {
    this.worker?.disconnect();
    this.worker = undefined;
  }
}
