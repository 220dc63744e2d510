import {setFlagsFromString} from 'node:v8';
import {runInNewContext} from 'node:vm';

/** Gives tests in Node a `gc`, as Chromium does with a flag. */
setFlagsFromString('--expose-gc');
(globalThis as {gc?: () => void}).gc = runInNewContext('gc') as () => void;
