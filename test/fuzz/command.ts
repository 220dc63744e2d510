import {parseArgs} from 'node:util';
import {fuzz} from './fuzz';
import {TARGETS} from './targets';

/** `npm run fuzz -- TARGET --minutes N --seed S`: looks for inputs that break a promise of docs/reliability.md. */
const usage = `Usage: npm run fuzz -- TARGET [--minutes N] [--seed S]
TARGET: ${Object.keys(TARGETS).join(', ')}, all
A finding is printed with its seed and written to test/fuzz/corpus/TARGET, which every run begins with.`;

const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: {minutes: {type: 'string', default: '1'}, seed: {type: 'string'}, help: {type: 'boolean'}},
});
const minutes = Number(values.minutes);
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
const names = positionals[0] === 'all' ? Object.keys(TARGETS) : positionals;
const isKnown = names.length > 0 && names.every((name) => Object.hasOwn(TARGETS, name));
if (values.help || !isKnown || !(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.log(usage);
  process.exit(values.help ? 0 : 1);
}

let found = 0;
for (const target of names) {
  const {cases, findings} = await fuzz({target, seed, milliseconds: 60_000 * minutes, keep: true});
  console.log(`${target}: ${cases} cases from seed ${seed}, ${findings.length} findings`);
  for (const {seed: of, file, fault} of findings.slice(0, 10))
    console.log(`  seed ${of ?? '-'}, ${file ?? '-'}: ${fault}`);
  found += findings.length;
}
process.exit(found > 0 ? 1 : 0);
