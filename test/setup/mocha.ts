import Mocha from 'mocha';

/** mocha as a library: its describe, it and hooks become globals, as the test files expect. */
export const mocha = new Mocha({timeout: 60_000, reporter: 'spec', grep: process.env.TEST_GREP});
mocha.suite.emit('pre-require', globalThis as unknown as Mocha.MochaGlobals, '', mocha);
