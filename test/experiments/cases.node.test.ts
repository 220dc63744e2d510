import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {createTokenizer} from '../../runner/tokenizer';
import {LlamaModel} from '../../runner/llama/model';
import {openCheckpoint} from '../../runner/llama/checkpoint';
import {sanity} from '../../experiments/cases/sanity';
import {threshold} from '../../experiments/cases/threshold';
import {continueRun} from '../../experiments/continue_run';
import {Experimenter} from '../../experiments/experimenter';
import {tokenLosses} from '../../experiments/measure/loss';
import type {Subject} from '../../experiments/measure/model';
import {type Command, EXPERIMENTS, parseCommand} from '../../experiments/options';
import {plots} from '../../experiments/plots';
import {readBook} from '../../experiments/prompts/book';
import {report} from '../../experiments/report';
import type {Run} from '../../experiments/results';
import {fixture} from '../setup/environment';
import {tinyConfig, tinyFiles, tinyTensors} from '../runner/llama/tiny/random_checkpoint';

const CASES = {sanity, threshold};

/** A random model with the real tokenizer: what it answers is nonsense, but every number must add up. */
describe('experiments, end to end [cpu]', () => {
  let subject: Subject;
  /** The runs of the tests, for their reports and plots. */
  const runs: Run[] = [];
  before(async () => {
    await tf.setBackend('cpu');
    const read = async (path: string) => new TextDecoder().decode(await fixture(path));
    const tokenizer = createTokenizer(JSON.parse(await read('demo/public/model/tokenizer.json')));
    // Narrow, since most of the time goes into logits.
    const config = {...tinyConfig, vocab_size: 8192, hidden_size: 16, max_position_embeddings: 1024};
    const model = await LlamaModel.load(await openCheckpoint(tinyFiles(config, tinyTensors(config))));
    const text = (await read('demo/public/books/dubliners.txt')).slice(0, 20_000);
    subject = {model, tokenizer, books: [readBook(tokenizer, 'dubliners', text)]};
  });
  after(() => subject.model.dispose());

  async function runCase(line: string, earlier?: Run): Promise<Run> {
    const {experiment, options} = parseCommand(line.split(' ')) as Command;
    const fresh: Run = {
      ...{experiment, date: '2026-11-24T00:00:00Z', command: line, host: 'a test', adapter: 'none'},
      ...{questions: options.questions, skipped: [], errors: []},
      ...{sizes: options.sizes, timed: false},
    };
    const run = earlier ? continueRun(fresh, earlier, options) : fresh;
    const place = {log: () => {}, save: () => {}};
    const tensors = tf.memory().numTensors;
    const experimenter = new Experimenter(subject, {adapter: 'none', errors: [], precisions: []}, options, place, run);
    await CASES[experiment](experimenter);
    expect(run.skipped).to.deep.equal([]);
    expect(tf.memory().numTensors, 'tensors left').to.equal(tensors);
    runs.push(run);
    return run;
  }

  it('losses are those of the logits', async () => {
    const ids = [5, 900, 17, 3000, 8191, 2];
    let hidden: tf.Tensor2D | undefined;
    const {logits, cache} = await subject.model.prefill(ids, {onHidden: (x) => void (hidden = tf.keep(tf.clone(x)))});
    const losses = await tokenLosses(subject.model, hidden!, ids);
    const all = subject.model.logitsOf(hidden!);
    const rows = (await all.array()) as number[][];
    expect(losses).to.have.lengthOf(ids.length - 1);
    losses.forEach((loss, i) => {
      const sum = rows[i].reduce((total, x) => total + Math.exp(x), 0);
      expect(loss).to.be.closeTo(Math.log(sum) - rows[i][ids[i + 1]], 1e-3);
    });
    const last = await logits.data();
    rows[ids.length - 1].forEach((x, i) => expect(x).to.be.closeTo(last[i], 1e-4));
    tf.dispose([hidden, all, logits]);
    cache.dispose();
  });

  it('sanity: nothing that must not matter matters', async () => {
    const {sanity: rows} = await runCase('sanity --lengths 512');
    expect(rows).to.have.lengthOf(4);
    for (const {check, outputDifference, lossDifference} of rows!) {
      expect(outputDifference, check).to.be.below(1e-5);
      expect(Math.abs(lossDifference), check).to.be.below(1e-4);
    }
  }).timeout(200_000);

  it('sweeps: a row for exact attention and for each variant; a lower threshold keeps less', async () => {
    const run = await runCase(
      'threshold --lengths 256 --questions 1 --tasks end,text-50 --thresholds 0.3,0.7 --segment-size 64 --block-size 32 ' +
        '--key-block-size 16 --rules default,paper',
    );
    expect(run.sweep).to.have.lengthOf(1 + 4);
    const [exact, ...sparse] = run.sweep!;
    expect(exact).to.deep.include({variant: 'exact', density: 1});
    expect(exact.lossDifference.value).to.equal(0);
    expect(exact.needle.end).to.deep.include({asked: 1});
    expect(exact.needle['text-50']).to.deep.include({asked: 1});
    for (let i = 0; i < sparse.length; i += 2) expect(sparse[i].density).to.be.below(sparse[i + 1].density);
    for (const {density, lossDifference} of sparse) {
      expect(density).to.be.within(0.1, 0.99);
      expect(lossDifference.value).not.to.equal(0);
    }
  }).timeout(120_000);

  it('a sweep that is continued keeps its rows and runs what it lacks', async () => {
    const line = (thresholds: string, questions = 1) =>
      `threshold --lengths 256 --questions ${questions} --thresholds ${thresholds} --segment-size 64 --block-size 32 --key-block-size 16 --rules paper`;
    const earlier = await runCase(line('0.7'));
    const kept = structuredClone(earlier.sweep!);
    const whole = await runCase(line('0.3,0.7'), earlier);
    expect(whole.sweep!.slice(0, 2)).to.deep.equal(kept);
    expect(whole.sweep!.slice(2).map(({variant}) => variant)).to.deep.equal(['τ 0.3, paper']);
    // What is added is what a run at once has.
    const [, low] = (await runCase(line('0.3'))).sweep!;
    expect(whole.sweep![2]).to.deep.equal(low);
    const {options} = parseCommand(line('0.7').split(' ')) as Command;
    const refused = (changed: Partial<Run>) => () => continueRun({...whole, ...changed}, whole, options);
    expect(refused({questions: 2})).to.throw('--continue: questions 2; accepted: 1, as in the earlier run');
    expect(refused({sizes: {blockSize: 16}})).to.throw('--continue: sizes {"blockSize":16}; accepted: {"blockSize":32');
    expect(refused({timed: true})).to.throw('--continue: timing on; accepted: off');
    expect(refused({adapter: 'other'})).to.throw('--continue: adapter other; accepted: none');
    expect(() => continueRun(whole, whole, {...options, tasks: ['end', 'text-50']})).to.throw(
      '--continue: tasks end,text-50',
    );
    expect(() => continueRun(whole, {...whole, sweep: []}, options)).to.throw('no rows of a sweep');
  }).timeout(120_000);

  it('every run makes a report and, but for sanity, plots', () => {
    expect(new Set(runs.map(({experiment}) => experiment)).size).to.equal(EXPERIMENTS.length);
    for (const run of runs) {
      const {experiment} = run;
      const markdown = report(run);
      expect(markdown, experiment).to.match(/^# /);
      expect(markdown, experiment).to.match(/\n\| .* \|\n\| -+/);
      expect(markdown, experiment).not.to.match(/NaN|undefined|Infinity/);
      const drawn = plots(run);
      expect(drawn.length > 0, experiment).to.equal(experiment !== 'sanity');
      for (const {name, svg} of drawn) {
        expect(svg, name).to.match(/^<svg xmlns/);
        expect(svg, name).not.to.match(/NaN|undefined|Infinity/);
      }
    }
  });

  it('what is left out is named', async () => {
    const {experiment, options} = parseCommand(['sanity', '--lengths', '512', '--budget', '0']) as Command;
    const run = {experiment, skipped: [] as string[], errors: []} as unknown as Run;
    let saved = 0;
    const place = {log: () => {}, save: () => ++saved};
    const experimenter = new Experimenter(subject, {adapter: 'none', errors: [], precisions: []}, options, place, run);
    await new Promise((resolve) => setTimeout(resolve, 2));
    await sanity(experimenter);
    expect(run.skipped).to.have.lengthOf(4);
    expect(run.skipped[0]).to.equal('threshold 1 512: the time was spent');
    await experimenter.step('sanity', 'broken', () => Promise.reject(new Error('of purpose')));
    expect(run.skipped).to.have.lengthOf(5);
  });

  it('refuses arguments that it does not know', () => {
    const parse = (line: string) => () => parseCommand(line.split(' '));
    expect(parse('everything')).to.throw('got "everything"; accepted: one of sanity, threshold');
    expect(parse('sanity --lengths 1000')).to.throw('--lengths has "1000"; accepted: multiples of 256 to 16384');
    expect(parse('threshold --rules pooled')).to.throw('--rules has "pooled"; accepted: default, paper');
    expect(parse('sanity --block-size 12')).to.throw('--block-size has "12"; accepted: a multiple of 8');
    expect(parse('threshold --tasks all')).to.throw('--tasks has "all"; accepted: end, text-50');
    expect(parse('sanity --fast')).to.throw(/Unknown option '--fast'.*accepted: --lengths/s);
    expect(parseCommand([])).to.equal('help');
  });
});
