import {expect} from 'chai';
import {answers, paretoFront} from '../../experiments/pareto';
import type {SweepRow} from '../../experiments/results';
import {meanEstimate, wilson} from '../../experiments/statistics';

describe('statistics of experiments', () => {
  it('wilson gives the interval of the textbook', () => {
    // Wilson 1927, as R's prop.test(correct = FALSE) prints it.
    const cases: Array<[number, number, number, number]> = [
      [40, 40, 0.9124, 1],
      [0, 10, 0, 0.2775],
      [8, 10, 0.4902, 0.9433],
      [38, 40, 0.835, 0.9862],
    ];
    for (const [successes, trials, low, high] of cases) {
      const estimate = wilson(successes, trials);
      expect(estimate.value).to.equal(successes / trials);
      expect(estimate.low).to.be.closeTo(low, 1e-4);
      expect(estimate.high).to.be.closeTo(high, 1e-4);
    }
    expect(() => wilson(3, 2)).to.throw('got 3 of 2');
    expect(() => wilson(0, 0)).to.throw('takes 0 to all of at least one');
  });

  it('means come with the normal interval; one value has none', () => {
    const estimate = meanEstimate([1, 2, 3, 4]);
    expect(estimate.value).to.equal(2.5);
    expect(estimate.high - 2.5).to.be.closeTo(1.959964 * Math.sqrt(5 / 3 / 4), 1e-9);
    expect(meanEstimate([7])).to.deep.equal({value: 7, low: -Infinity, high: Infinity});
    expect(() => meanEstimate([])).to.throw('takes at least one');
  });

  it('the Pareto front leaves out what another beats', () => {
    const rows = [
      {name: 'slow and good', work: 3, loss: 0},
      {name: 'beaten', work: 2, loss: 5},
      {name: 'between', work: 2, loss: 1},
      {name: 'beaten as well', work: 4, loss: 0},
      {name: 'fast', work: 1, loss: 2},
    ];
    expect(paretoFront(rows, (row) => row).map(({name}) => name)).to.deep.equal(['fast', 'between', 'slow and good']);
    expect(paretoFront([], (row) => row)).to.deep.equal([]);
  });

  it('a row answers if it gives 95% of the answers of exact attention, in each task', () => {
    const row = (variant: string, end: number, border: number, length = 512) =>
      ({length, variant, needle: {end: {correct: end}, border: {correct: border}}}) as unknown as SweepRow;
    // What exact attention does not answer is not asked of the others; that of another length does not count.
    const rows = [row('exact', 40, 40, 256), row('exact', 40, 10), row('a', 38, 11), row('b', 37, 10), row('c', 40, 9)];
    expect(rows.slice(2).map((x) => answers(x, rows))).to.deep.equal([true, false, false]);
  });
});
