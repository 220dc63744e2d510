import {startPage} from './page/page';

startPage(() => new Worker(new URL('./engine/worker.ts', import.meta.url), {type: 'module', name: 'engine'}));
