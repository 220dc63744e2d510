import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import type {Tokenizer} from '@huggingface/tokenizers';
import {expect} from 'chai';
import {timing} from '../../bench/statistics';
import {createTokenizer, encode} from '../../runner/tokenizer';
import type {ExperimentDevice} from '../../experiments/device';
import {type Book, readBook} from '../../experiments/prompts/book';
import {keptShares} from '../../experiments/real/attention_mass';
import {continued, measure} from '../../experiments/real/command';
import {spread} from '../../experiments/real/compare_rules';
import {parseReal, type RealCommand} from '../../experiments/real/options';
import {oracleMask} from '../../experiments/real/oracle';
import {realPlots} from '../../experiments/real/plots';
import {klAt, realReport} from '../../experiments/real/report';
import {parseRun, type RealRun, runJson, type TunedRow, type TunerRow} from '../../experiments/real/results';
import {PLACEMENTS, RULER_TASKS, rulerPrompt} from '../../experiments/real/ruler';
import {parseRule, planOf} from '../../experiments/real/rules';
import {summarise} from '../../experiments/real/summary';
import {parseText, readText} from '../../experiments/real/texts';
import {ALLOWED, FIXED} from '../../experiments/real/tuner';
import {mean} from '../../experiments/statistics';
import {type PBSAttentionPlan, pbsAttentionPlan} from '../../src/index';
import {blockGeometry, scoredBlocks, visibleBlocks} from '../../src/attention/block_geometry';
import {dot, keyRow} from '../../src/kernels/cpu/rows';
import {leastScore, peakWeight} from '../../src/attention/sampled_estimate';
import {fixture} from '../setup/environment';
import {jsonFile, tinyConfig, tinyFiles, tinyTensors} from '../runner/llama/tiny/random_checkpoint';
import {randomInputs, tensors} from '../reference/attention';

const read = async (path: string) => new TextDecoder().decode(await fixture(path));

describe('true attention mass [cpu]', () => {
  const SHAPE = {heads: 4, keyValueHeads: 2, length: 200, headDim: 8};
  const inputs = randomInputs(SHAPE, 3);
  before(() => tf.setBackend('cpu'));

  /** What each row pays to each block of a plan's keys, `[head][row][block]`. */
  function trueMass({keyIndices, sizes}: PBSAttentionPlan): number[][][] {
    const [query, key] = tensors(inputs);
    const geometry = blockGeometry(query, key, sizes!);
    tf.dispose([query, key]);
    const {heads, keyLength: length, headDim, keyBlockSize, keyBlocks} = geometry;
    const order = keyIndices.dataSync();
    return Array.from({length: heads}, (_, head) =>
      Array.from({length}, (_, row) => {
        const mass = new Array<number>(keyBlocks).fill(0);
        let sum = 0;
        for (let slot = 0; slot < length; ++slot) {
          const position = order[head * length + slot];
          if (position > row) continue;
          const from = (head * length + row) * headDim;
          const score = dot(inputs.query, from, inputs.key, keyRow(geometry, head, position) * headDim, headDim);
          const weight = Math.exp(score / Math.sqrt(headDim));
          mass[Math.floor(slot / keyBlockSize)] += weight;
          sum += weight;
        }
        return mass.map((x) => x / sum);
      }),
    );
  }

  for (const permute of [true, false]) {
    it(`the oracle keeps what the rule says of it, keys ${permute ? 'sorted' : 'in their order'}`, () => {
      const [query, key, value] = tensors(inputs);
      const sizes = {blockSize: 16, keyBlockSize: 8, segmentSize: 32};
      const plan = pbsAttentionPlan(query, key, {...sizes, permute});
      const geometry = blockGeometry(query, key, plan.sizes!);
      const {heads, queryBlocks, keyBlocks, blockSize} = geometry;
      const mass = trueMass(plan);
      const order = plan.keyIndices.dataSync();
      for (const threshold of [0.6, 0.8]) {
        // In one piece, and head by head.
        for (const most of [undefined, 1]) {
          const tensors = tf.memory().numTensors;
          const mask = oracleMask(query, key, plan, threshold, most);
          expect(tf.memory().numTensors).to.equal(tensors + 1);
          expect(mask.dtype).to.equal('bool');
          const kept = mask.dataSync();
          let skipped = 0;
          for (let head = 0; head < heads; ++head) {
            const sink = Math.floor(order.subarray(head * 200).indexOf(0) / 8);
            for (let block = 0; block < queryBlocks; ++block) {
              const rows = mass[head].slice(block * blockSize, (block + 1) * blockSize);
              const least = leastScore(geometry, true, threshold, block);
              for (let j = 0; j < keyBlocks; ++j) {
                const paid = rows.map((row) => row[j]);
                const score = paid.reduce((a, b) => a + b, 0) / rows.length + peakWeight * Math.max(...paid);
                const competes = j < scoredBlocks(geometry, true, block) && j !== sink;
                const expected = competes ? score >= least : j < visibleBlocks(geometry, true, block);
                if (competes && Math.abs(score - least) < 1e-5) continue;
                expect(Boolean(kept[(head * queryBlocks + block) * keyBlocks + j]), `${head} ${block} ${j}`).to.equal(
                  expected,
                );
                if (competes && !expected) ++skipped;
              }
            }
          }
          expect(skipped).to.be.above(50);
          mask.dispose();
        }
      }
      tf.dispose([query, key, value, plan.keyIndices, plan.blockMask]);
    });
  }

  it('kept shares are those of the mask', () => {
    const [query, key, value] = tensors(inputs);
    const plan = pbsAttentionPlan(query, key, {blockSize: 16, keyBlockSize: 16, segmentSize: 32, threshold: 0.5});
    const mass = trueMass(plan);
    const mask = plan.blockMask.dataSync();
    const rows = [0, 40, 41, 150, 199];
    const shares = tf.tidy(() => keptShares(query, key, plan, rows).arraySync() as number[][]);
    const [, , queryBlocks, keyBlocks] = plan.blockMask.shape;
    shares.forEach((own, head) =>
      own.forEach((share, i) => {
        const start = (head * queryBlocks + Math.floor(rows[i] / 16)) * keyBlocks;
        const kept = mass[head][rows[i]].reduce((sum, x, j) => sum + (mask[start + j] ? x : 0), 0);
        expect(share).to.be.closeTo(kept, 1e-5);
      }),
    );
    expect(Math.min(...shares.flat())).to.be.below(0.99);
    tf.dispose([query, key, value, plan.keyIndices, plan.blockMask]);
  });
});

describe('prompts after RULER', () => {
  let tokenizer: Tokenizer;
  let book: Book;
  before(async () => {
    tokenizer = createTokenizer(JSON.parse(await read('demo/public/model/tokenizer.json')));
    book = readBook(tokenizer, 'dubliners', (await read('demo/public/books/dubliners.txt')).slice(0, 60_000));
  });

  for (const task of RULER_TASKS) {
    it(`${task}: exact length, questions in their places, answers told in the text`, () => {
      const {ids, items} = rulerPrompt(tokenizer, book, task, 3000, 7);
      expect(ids).to.have.lengthOf(3000);
      expect(rulerPrompt(tokenizer, book, task, 3000, 7).ids).to.deep.equal(ids);
      expect(rulerPrompt(tokenizer, book, task, 3000, 8).ids).not.to.deep.equal(ids);
      expect(items).to.have.lengthOf(task === 'needles' ? 3 : 12);
      const text = tokenizer.decode(ids);
      const asked = text.slice(text.indexOf(task === 'variables' ? 'Question: Find' : 'Question: What'));
      const told = text.slice(0, text.length - asked.length);
      expect(
        told.match(/(magic numbers for [a-z]+-[a-z]+ is: \d{7}\.)|(VAR [A-Z]{5} = (VAR [A-Z]{5}|\d{5})\.)/g),
      ).to.have.lengthOf(task === 'variables' ? 12 : 16);
      for (const placement of PLACEMENTS) {
        const own = items.filter((item) => item.placement === placement);
        const first = Math.min(...own.map(({row}) => row));
        const behind = ids.length - 1 - first;
        if (placement !== 'end') expect(behind).to.be.within(Number(placement) - 4, Number(placement));
        else expect(behind).to.be.below(80);
        for (const {row, answer} of own) {
          expect(ids.slice(row + 1, row + 1 + answer.length)).to.deep.equal(answer);
          expect(tokenizer.decode(answer).trim()).to.match(task === 'variables' ? /^[A-Z]{5}$/ : /^\d{7}$/);
          expect(told).to.contain(tokenizer.decode(answer).trim());
        }
      }
      expect(() => rulerPrompt(tokenizer, book, task, 1200, 7)).to.throw('and 256 of text');
    });
  }
});

/** A random model with the real tokenizer: what it says is nonsense, but every number must add up. */
describe('real, end to end [cpu]', () => {
  let folder: string;
  const device: ExperimentDevice = {adapter: 'none', errors: [], precisions: ['float32']};
  before(async () => {
    await tf.setBackend('cpu');
    folder = mkdtempSync(join(tmpdir(), 'real-'));
    const config = {...tinyConfig, vocab_size: 8192, hidden_size: 16, max_position_embeddings: 4096};
    const files = tinyFiles(config, tinyTensors(config)).filter(({name}) => name !== 'tokenizer.json');
    files.push(jsonFile('tokenizer.json', JSON.parse(await read('demo/public/model/tokenizer.json'))));
    for (const file of files) writeFileSync(join(folder, file.name), new Uint8Array(await file.arrayBuffer()));
  });
  after(() => rmSync(folder, {recursive: true}));

  async function runReal(line: string, on = device): Promise<RealRun> {
    const common = `--model ${folder} --name tiny --backend cpu --out ${folder}/out`;
    const tensors = tf.memory().numTensors;
    const run = await measure(parseReal(`${common} ${line}`.split(' ')) as RealCommand, on, line, () => {});
    expect(tf.memory().numTensors, 'tensors left').to.equal(tensors);
    expect(JSON.parse(readFileSync(`${folder}/out/tiny.json`, 'utf8'))).to.deep.equal(JSON.parse(JSON.stringify(run)));
    return run;
  }

  let whole: RealRun;
  it('quality: a row for each rule and text, goes on where it was cut off', async () => {
    const line = (rules: string) =>
      `--only quality --lengths 600 --texts src@2000,demo/public/books/dubliners.txt --rows 12 --rules ${rules}`;
    const first = await runReal(line('default-32x16@0.5'));
    expect(first.skipped).to.deep.equal([]);
    expect(first.quality.map(({text}) => text)).to.deep.equal(['src@2000', 'dubliners']);
    const kept = structuredClone(first.quality);
    whole = await runReal(`${line('default-32x16@0.5,oracle-32x16@0.5,oracle-32x16@0.8,oracle@1')} --continue`);
    expect(whole.quality.slice(0, 2)).to.deep.equal(kept);
    expect(whole.quality).to.have.lengthOf(8);
    expect(whole.commands).to.have.lengthOf(2);
    for (const row of whole.quality) {
      expect(row.densities).to.have.lengthOf(2);
      row.densities.forEach((heads) => expect(heads).to.have.lengthOf(4));
      expect(row.keptMassWorst).to.be.at.most(row.keptMass);
      if (row.rule === 'oracle@1') {
        expect(row).to.include({density: 1, top1: 1});
        expect(row.kl).to.be.below(1e-6);
        expect(row.keptMass).to.be.closeTo(1, 1e-5);
      } else {
        expect(row.density).to.be.within(0.3, 0.999);
        expect(row.kl).to.be.above(1e-6);
        expect(row.keptMass).to.be.within(0.1, 0.99999);
      }
    }
    expect(() => continued({...whole, rows: 13}, whole)).to.throw('--continue: rows 13; accepted: 12');
  }).timeout(200_000);

  it('times: layers spread by density, shares by stage; first tokens', async () => {
    const calls: string[] = [];
    const timer: ExperimentDevice['timer'] = {
      shortestMs: 0,
      warmUpMs: 0,
      finish: () => Promise.resolve(),
      timePrograms: (call) => {
        tf.dispose(tf.tidy(call));
        calls.push('call');
        const programs = [
          ['SampledMassProgram', 1],
          ['AttendProgram', 3],
        ] as const;
        return Promise.resolve(programs.map(([program, ms]) => ({program, gpu: timing([ms], 1)})));
      },
    };
    const run = await runReal(
      '--only time,first-token --lengths 300 --texts demo/public/books/dubliners.txt --rules default,oracle --rows 12 ' +
        '--timed-layers 5 --continue',
      {...device, timer},
    );
    expect(run.time).to.have.lengthOf(1);
    const [row] = run.time;
    expect([...row.layers].sort()).to.deep.equal([0, 1]);
    expect(row).to.deep.include({exact: 4, total: 4, stages: {score: 1, attend: 3}});
    expect(calls).to.have.lengthOf(1 + 2 + 2);
    expect(run.firstToken.map(({rule}) => rule)).to.deep.equal(['exact', 'default']);
    whole = run;
    const [summary] = summarise(run).filter(({length, rule}) => length === 300 && rule === 'default');
    expect(summary).to.deep.include({model: 'tiny', texts: 1, kl: null, timeFloat32: 1, selectionFloat32: 0.25});
    expect(summary.timeFloat16).to.equal(null);
  }).timeout(200_000);

  it('tasks: every item asked, by exact attention and by the rule', async () => {
    whole = await runReal('--only tasks --lengths 2304 --prompts 8 --rules default --rows 12 --budget 0 --continue');
    expect(whole.skipped[0]).to.equal('needles, exact 2304: the time was spent');
    whole.skipped = [];
    const run = await runReal('--only tasks --lengths 2304 --prompts 1 --rules default@0.3 --rows 12');
    expect(run.tasks.map(({task, rule}) => `${task} ${rule}`)).to.deep.equal(
      RULER_TASKS.flatMap((task) => [`${task} exact`, `${task} default@0.3`]),
    );
    for (const {task, answers, density, rule} of run.tasks) {
      for (const at of PLACEMENTS) expect(answers[at].asked).to.equal(task === 'needles' ? 1 : 4);
      expect(density === 1).to.equal(rule === 'exact');
    }
    whole.tasks = run.tasks;
  }).timeout(300_000);

  it('tuner: choices on the first text at the least length, read on the others at the greatest', async () => {
    const line = '--only tuner --lengths 600,500 --texts demo/public/books/dubliners.txt,src@2000 --rows 12';
    const spent = await runReal(`${line} --budget 0`);
    expect(spent.skipped).to.include('samples dubliners 500: the time was spent');
    expect([...spent.tuned, ...spent.tuner]).to.deep.equal([]);
    // On so few tokens the tuner chooses exact attention, so choices that differ by layer are put beside its own.
    const layers = [{blockSize: 32, keyBlockSize: 16, segmentSize: 64, threshold: 0.5}, {threshold: 1}];
    const made: TunedRow[] = ALLOWED.slice(1).map((allowed) => ({
      ...{length: 500, text: 'dubliners', allowed, density: 0.9},
      layers: layers.map((options) => ({options, density: 0.9, relativeL1: 0.01})),
    }));
    writeFileSync(`${folder}/out/tiny.json`, runJson({...spent, tuned: made}));
    const run = await runReal(`${line} --continue`);
    expect(run.skipped).to.deep.equal([]);
    expect(run.tuned.slice(0, -1)).to.deep.equal(made);
    const exact = {options: {threshold: 1}, density: 1, relativeL1: 0};
    expect(run.tuned.at(-1)).to.deep.equal({
      ...{length: 500, text: 'dubliners', allowed: ALLOWED[0], density: 1},
      layers: [exact, exact],
    });
    const names = [...FIXED.map(({name}) => name), ...run.tuned.map(({allowed}) => `tuned@${allowed}`)];
    expect(run.tuner.map(({rule}) => rule)).to.deep.equal(names);
    for (const row of run.tuner) {
      expect(row).to.include({tunedText: 'dubliners', tunedLength: 500, text: 'src@2000', length: 600});
      if (!row.rule.startsWith('tuned')) continue;
      const isMade = row.rule !== `tuned@${ALLOWED[0]}`;
      expect(mean(row.densities[0]) < 1, row.rule).to.equal(isMade);
      expect(row.kl > 1e-6, row.rule).to.equal(isMade);
      expect(mean(row.densities[1]), row.rule).to.equal(1);
    }
    expect((await runReal(`${line} --continue`)).tuner).to.deep.equal(run.tuner);
    [whole.tuned, whole.tuner] = [run.tuned, run.tuner];
  }).timeout(200_000);

  it('tuner: says nothing of one text', async () => {
    const {skipped} = await runReal('--only tuner --lengths 300 --texts src@2000 --rows 12');
    expect(skipped).to.deep.equal(['tuner: --texts has one; accepted: two or more, the first to tune on']);
  });

  it('a report, plots and one line a row', () => {
    const markdown = realReport(whole);
    expect(markdown).to.contain('## 600 tokens').and.to.contain('oracle-32x16@0.5');
    expect(markdown).not.to.match(/NaN|undefined|Infinity/);
    const names = realPlots(whole).map(({name, svg}) => {
      expect(svg, name).not.to.match(/NaN|undefined|Infinity/);
      return name;
    });
    expect(names).to.deep.equal(['density', 'layers']);
    const json = runJson(whole);
    expect(JSON.parse(json)).to.deep.equal(JSON.parse(JSON.stringify(whole)));
    expect(json.split('\n').filter((line) => line.includes('"density"'))).to.have.lengthOf(
      whole.quality.length + whole.tasks.length + whole.tuned.length + whole.tuner.length,
    );
    const before = JSON.stringify({...whole, tuned: undefined, tuner: undefined});
    expect(parseRun(before), 'a file of before the tuner').to.deep.equal({...whole, tuned: [], tuner: []});
  });
});

describe('arguments of real', () => {
  it('rules: sizes, order and threshold by name', () => {
    expect(parseRule('default')).to.deep.equal({name: 'default', options: {}, isOracle: false});
    expect(parseRule('paper@0.95')!.options).to.include({estimate: 'pooled', keyBlockSize: 128, threshold: 0.95});
    expect(parseRule('oracle-64x32-unsorted@.8')).to.deep.equal({
      name: 'oracle-64x32-unsorted@.8',
      options: {blockSize: 64, keyBlockSize: 32, permute: false, threshold: 0.8},
      isOracle: true,
    });
    expect(parseRule('causal-safe')!.options).to.deep.equal({causalSafe: true});
    for (const name of ['oracles', 'default@2', 'default-64', 'paper@'])
      expect(parseRule(name), name).to.equal(undefined);
  });

  it('a rule without an oracle has the plan of the library', async () => {
    await tf.setBackend('cpu');
    tf.tidy(() => {
      const [query, key] = tensors(randomInputs({heads: 2, keyValueHeads: 1, length: 300, headDim: 8}, 1));
      const {blockMask} = planOf(parseRule('paper@0.5')!, query, key);
      expect(blockMask.shape).to.deep.equal([1, 2, 3, 3]);
    });
  });

  it('texts: files, folders of source, from a character on', () => {
    expect(parseText('a/b.txt@30')).to.deep.equal({name: 'b@30', path: 'a/b.txt', start: 30});
    const all = readText(parseText('experiments/real')!);
    expect(all).to.contain('export function oracleMask').and.to.contain('export function rulerPrompt');
    expect(readText(parseText('experiments/real@100')!)).to.equal(all.slice(100));
  });

  it('refuses what it does not know', () => {
    const parse = (line: string) => () => parseReal(line.split(' '));
    expect(parse('--rows 3')).to.throw('--model is missing');
    expect(parse('--model x --rules best')).to.throw('--rules has "best"; accepted: NAME[-QxK]');
    expect(parse('--model x --only speed')).to.throw('--only has "speed"; accepted: quality, time');
    expect((parseReal(['--model', '/a/smol/', '--no-timing']) as RealCommand).parts).to.deep.equal([
      'quality',
      'tasks',
    ]);
    const {name, parts} = parseReal(['--model', '/a/smol/']) as RealCommand;
    expect(name).to.equal('smol');
    expect(parts, 'the tuner where it is asked for').to.deep.equal(['quality', 'time', 'first-token', 'tasks']);
    expect(parseReal([])).to.equal('help');
  });

  it('rows are spread, each with a token after it', () => {
    const rows = spread(256, 8192);
    expect(rows).to.have.lengthOf(256);
    expect([rows[0], rows.at(-1)]).to.deep.equal([256, 8190]);
    expect(spread(8, 20)[0]).to.equal(10);
  });

  it('the KL of a front at a density lies between its points', () => {
    const front = [
      {density: 0.1, kl: 0.01},
      {density: 0.4, kl: 0.0025},
    ];
    expect(klAt(front, 0.2)).to.be.closeTo(0.005, 1e-9);
    expect(klAt(front, 0.8)).to.be.closeTo(0.00125, 1e-9);
    expect(klAt(front.slice(1), 0.2)).to.equal(undefined);
  });

  it('tuned rules stand beside the fixed front at their density, by text and in the mean', () => {
    const row = (text: string, rule: string, density: number, kl: number) =>
      ({tunedText: 'a', tunedLength: 8192, length: 16_384, text, rule, density, kl, top1: 0.9}) as TunerRow;
    const tuner = ['b', 'c'].flatMap((text, i) => [
      row(text, 'tuned@0.05', 0.2, 0.004),
      row(text, 'default@0.94', 0.4, 0.0025),
      row(text, 'default@0.85', 0.1, [0.01, 0.0225][i]),
    ]);
    tuner.push(row('b', 'tuned@0.1', 0.1, 0.02));
    const others = {quality: [], time: [], firstToken: [], tasks: [], tuned: [], skipped: [], errors: []};
    const markdown = realReport({...others, tuner, model: 'm', date: '', commands: []} as unknown as RealRun);
    const cells = [...markdown.matchAll(/^\| (\S+@.*) \|$/gm)].map(([, line]) => line.split('|').map((x) => x.trim()));
    const fixed = [
      ['default@0.85', ''],
      ['default@0.94', ''],
    ];
    expect(cells.map(([rule, , , , share]) => [rule, share])).to.deep.equal([
      ...[...fixed, ['tuned@0.1', '2.00'], ['tuned@0.05', '0.80']],
      ...[...fixed, ['tuned@0.05', '0.53']],
      // tuned@0.1 was not read on both.
      ...[...fixed, ['tuned@0.05', '0.63']],
    ]);
    for (const title of ['b:', 'c:', 'means over texts:']) {
      expect(markdown).to.contain(`Tuned on a at 8,192 tokens, ${title}\n\n| rule`);
    }
  });

  it('a special token is one token only where the tokenizer has it', async () => {
    const tokenizer = createTokenizer(JSON.parse(await read('demo/public/model/tokenizer.json')));
    expect(encode(tokenizer, '<|im_start|>').length).to.be.above(1);
  });
});
