import {expect} from 'chai';
import fc from 'fast-check';
import {cheapestChoice} from '../../src/tuning/cheapest_choice';

/** Each layer has exact attention, without loss, and faster ways that lose. */
const choice = fc.record({time: fc.integer({min: 1, max: 90}), loss: fc.integer({min: 1, max: 50})});
const layers = fc.array(
  fc.array(choice, {maxLength: 4}).map((faster) => [{time: 100, loss: 0}, ...faster]),
  {minLength: 1, maxLength: 4},
);

describe('cheapest choice', () => {
  const totals = (given: Array<Array<{time: number; loss: number}>>, chosen: number[]) => {
    const picked = chosen.map((index, layer) => given[layer][index]);
    return {time: picked.reduce((a, {time}) => a + time, 0), loss: picked.reduce((a, {loss}) => a + loss, 0)};
  };

  /** Least time within what is allowed, of all combinations. */
  const least = (given: Array<Array<{time: number; loss: number}>>, allowed: number): number => {
    const [first, ...rest] = given;
    const times = first
      .filter(({loss}) => loss <= allowed)
      .map(({time, loss}) => time + (rest.length > 0 ? least(rest, allowed - loss) : 0));
    return Math.min(...times);
  };

  it('is within what is allowed, and no layer can change to something cheaper', () => {
    fc.assert(
      fc.property(layers, fc.integer({min: 0, max: 120}), (given, allowed) => {
        const chosen = cheapestChoice(given, allowed);
        const {loss} = totals(given, chosen);
        expect(loss).to.be.at.most(allowed);
        given.forEach((choices, layer) => {
          const now = choices[chosen[layer]];
          for (const other of choices) {
            if (other.time < now.time) expect(loss - now.loss + other.loss).to.be.above(allowed);
          }
        });
      }),
    );
  });

  it('of one layer is the cheapest that is allowed', () => {
    fc.assert(
      fc.property(layers, fc.integer({min: 0, max: 60}), ([first], allowed) => {
        expect(totals([first], cheapestChoice([first], allowed)).time).to.equal(least([first], allowed));
      }),
    );
  });

  it('of many layers is near the best combination', () => {
    let sum = 0;
    let best = 0;
    fc.assert(
      fc.property(layers, fc.integer({min: 0, max: 120}), (given, allowed) => {
        sum += totals(given, cheapestChoice(given, allowed)).time;
        best += least(given, allowed);
      }),
      {seed: 7, numRuns: 300},
    );
    expect(sum).to.be.at.most(1.03 * best);
  });

  it('gives the loss that is allowed to the layer where it saves most', () => {
    const steep = [
      {time: 10, loss: 0},
      {time: 1, loss: 1},
    ];
    const shallow = [
      {time: 10, loss: 0},
      {time: 9, loss: 1},
    ];
    expect(cheapestChoice([steep, shallow], 1)).to.deep.equal([1, 0]);
    expect(cheapestChoice([shallow, steep], 1)).to.deep.equal([0, 1]);
    expect(cheapestChoice([shallow, steep], 2)).to.deep.equal([1, 1]);
    expect(cheapestChoice([shallow, steep], 0)).to.deep.equal([0, 0]);
  });
});
