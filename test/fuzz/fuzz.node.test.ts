import {expect} from 'chai';
import {fuzz} from './fuzz';
import {TARGETS} from './targets';

describe('hostile input, made by chance', () => {
  for (const target of Object.keys(TARGETS)) {
    it(`${target}: two seconds without a finding`, async function () {
      this.timeout(60_000);
      const {cases, findings} = await fuzz({target, seed: 1, milliseconds: 2000, keep: false});
      expect(findings).to.deep.equal([]);
      expect(cases).to.be.above(0);
    });
  }
});
