import {setBackend} from '@tensorflow/tfjs-core';

/**
 * What differs between the places where the tests run: Node, Chromium under karma, and Node with Dawn on a GPU host.
 * Each place has a setup file that fills this in before any test file is loaded.
 */
export interface Environment {
  /** Backends whose kernels are tested here. */
  backends: string[];
  /** Backends without kernels of their own, where attention is composed of tfjs's ops. */
  composed?: string[];
  /** Reads a file, by its path in the repository. */
  readFile(path: string): Promise<ArrayBuffer>;
}

const holder = globalThis as {testEnvironment?: Environment};

/** Fills in what is given, and leaves what was set before. */
export function setEnvironment(environment: Partial<Environment>): void {
  holder.testEnvironment = {...holder.testEnvironment, ...environment} as Environment;
}

function environment(): Environment {
  if (!holder.testEnvironment) {
    throw new Error('No test environment: load one of test/setup/*.ts before the tests.');
  }
  return holder.testEnvironment;
}

export const testBackends = (): string[] => environment().backends;
export const fixture = (path: string): Promise<ArrayBuffer> => environment().readFile(path);

/** A mocha suite for each backend under test. */
export function describeBackends(name: string, tests: (backend: string) => void): void {
  for (const backend of testBackends()) {
    describe(`${name} [${backend}]`, () => tests(backend));
  }
}

/** The same of what backends without kernels of their own do as well. */
export function describeAllBackends(name: string, tests: (backend: string) => void): void {
  describeBackends(name, tests);
  for (const backend of environment().composed ?? []) {
    describe(`${name} [${backend}]`, () => tests(backend));
  }
}

/** A mocha suite for the CPU backend alone: what no backend decides, run where that backend is under test. */
export function describeOnCPU(name: string, tests: () => void): void {
  if (testBackends().includes('cpu')) {
    describe(name, () => {
      before(async () => {
        await setBackend('cpu');
      });
      tests();
    });
  }
}
