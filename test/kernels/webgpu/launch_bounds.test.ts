import {expect} from 'chai';
import fc from 'fast-check';
import {launchBounds} from '../../../src/kernels/webgpu/runtime/launches';

describe('bounds of launches', () => {
  /** Work of workgroups [from, to) of `count`, of a mean of 1 each. */
  const workOf = (from: number, to: number, count: number, lightest: number) => {
    const upTo = (x: number) => (x - ((1 - lightest) * x * x) / (2 * count)) / ((1 + lightest) / 2);
    return upTo(to) - upTo(from);
  };

  it('is one launch up to 50 ms', () => {
    expect(launchBounds(100, {time: 0, lightest: 0})).to.deep.equal([0, 100]);
    expect(launchBounds(100, {time: 50, lightest: 0.5})).to.deep.equal([0, 100]);
    expect(launchBounds(1, {time: 500, lightest: 0})).to.deep.equal([0, 1]);
  });

  it('gives launches of equal work, of 50 ms at most but for those of one workgroup', () => {
    const lightest = fc.oneof(fc.constantFrom(0, 1), fc.double({min: 0, max: 1, noNaN: true}));
    fc.assert(
      fc.property(
        fc.integer({min: 1, max: 20_000}),
        fc.integer({min: 1, max: 3_000}),
        lightest,
        (count, time, last) => {
          const bounds = launchBounds(count, {time, lightest: last});
          expect(bounds[0]).to.equal(0);
          expect(bounds.at(-1)).to.equal(count);
          const fewest = Math.ceil(time / 50);
          expect(bounds.length - 1).to.be.within(Math.min(count, fewest), Math.min(count, 2 * fewest));
          bounds.slice(1).forEach((end, i) => {
            expect(end).to.be.at.least(bounds[i]);
            // Where a launch has a share of less than one workgroup, it has none or one.
            const work = workOf(bounds[i], end, count, last);
            expect(work).to.be.at.most(count / (bounds.length - 1) + 2);
            if (end - bounds[i] > 1 && work > 2) expect((work / count) * time).to.be.at.most(50 * (1 + 1e-9));
          });
        },
      ),
    );
  });

  it('takes fewer of the first workgroups, which see most keys', () => {
    expect(launchBounds(1000, {time: 198, lightest: 1})).to.deep.equal([0, 250, 500, 750, 1000]);
    expect(launchBounds(1000, {time: 198, lightest: 0})).to.deep.equal([0, 134, 293, 500, 1000]);
  });
});
