import {readFile} from 'node:fs/promises';
import {createServer, type Server} from 'node:http';
import type {AddressInfo} from 'node:net';
import {join} from 'node:path';
import sirv from 'sirv';

/** Serves the built page on a free port, as any web host would. */
export class DemoServer {
  /** Runs in the worker before its own script: a test breaks things there. */
  workerPrelude = '';

  private constructor(
    private readonly server: Server,
    readonly url: string,
  ) {}

  /** @param folders that hold the page, in the order in which they are looked through. */
  static async open(...folders: string[]): Promise<DemoServer> {
    const handlers = folders.map((folder) => sirv(folder, {dev: true}));
    const server = createServer((request, response) => {
      const path = new URL(request.url ?? '/', 'http://localhost').pathname;
      if (/\/assets\/worker-[\w-]+\.js$/.test(path) && demo.workerPrelude !== '') {
        void demo.sendWorker(folders[0], path).then((script) => {
          response.writeHead(200, {'content-type': 'text/javascript'}).end(script);
        });
        return;
      }
      const pass = (index: number) => {
        if (index === handlers.length) response.writeHead(404).end();
        else handlers[index](request, response, () => pass(index + 1));
      };
      pass(0);
    });
    await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
    const demo = new DemoServer(server, `http://localhost:${(server.address() as AddressInfo).port}/`);
    return demo;
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private async sendWorker(folder: string, path: string): Promise<string> {
    return `${this.workerPrelude}\n${await readFile(join(folder, path), 'utf8')}`;
  }
}
