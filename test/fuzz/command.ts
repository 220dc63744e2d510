import {parseArgs} from 'node:util';
import {fuzz, type FuzzResult} from './fuzz';
import {TARGETS} from './targets';

/** `npm run fuzz -- TARGET --minutes N --seed S --jobs J`: looks for inputs that break a promise of docs/reliability.md. */
const usage = `Usage: npm run fuzz -- TARGET [--minutes 1] [--seed S] [--jobs 1]
TARGET: ${Object.keys(TARGETS).join(', ')}, all
Minutes are those of each target, jobs the processes that share them.
A finding is printed with its seed and written to test/fuzz/corpus/TARGET, which every run begins with.`;

const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: {
    minutes: {type: 'string', default: '1'},
    seed: {type: 'string'},
    jobs: {type: 'string', default: '1'},
    help: {type: 'boolean'},
  },
});
const minutes = Number(values.minutes);
const jobs = Number(values.jobs);
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
const names = positionals[0] === 'all' ? Object.keys(TARGETS) : positionals;
const isKnown = names.length > 0 && names.every((name) => Object.hasOwn(TARGETS, name));
if (
  values.help ||
  !isKnown ||
  !(minutes > 0) ||
  !Number.isSafeInteger(seed) ||
  !(Number.isSafeInteger(jobs) && jobs > 0)
) {
  console.log(usage);
  process.exit(values.help ? 0 : 1);
}

const say = (target: string, {cases, findings}: FuzzResult, when = '') =>
  console.log(`${target}: ${cases} cases from seed ${seed}, ${findings.length} findings${when}`);

let found = 0;
let isStopped = false;
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => (isStopped = true));
for (const target of names) {
  const result = await fuzz({
    ...{target, seed, jobs, milliseconds: 60_000 * minutes, keep: true},
    onMinute: (soFar) => say(target, soFar, ' so far'),
  });
  say(target, result);
  for (const {seed: of, file, fault} of result.findings.slice(0, 10))
    console.log(`  seed ${of ?? '-'}, ${file ?? '-'}: ${fault}`);
  found += result.findings.length;
  if (isStopped) break;
}
process.exit(found > 0 ? 1 : 0);
