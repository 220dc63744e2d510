import {parseArgs} from 'node:util';

/** `npm run test:gpu -- --fuzz-minutes N`: random calls of attention alone, for so long; the other tests read what is set here. */
const {values} = parseArgs({options: {'fuzz-minutes': {type: 'string'}}});
const minutes = values['fuzz-minutes'];
if (minutes !== undefined) {
  if (!(Number(minutes) > 0)) throw new Error(`--fuzz-minutes: got '${minutes}'; takes a number above 0`);
  process.env.FORM_MINUTES = minutes;
  process.env.TEST_GREP ??= 'forms of scores, by chance';
}
