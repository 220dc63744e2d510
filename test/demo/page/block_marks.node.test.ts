import {expect} from 'chai';
import type {BlockPicture} from '../../../demo/engine/protocol';
import {describeMask, Mark, markBlocks} from '../../../demo/page/block_marks';

const mask = {
  // Blocks 2 and 3 are a segment: row 2 keeps block 3, which may hold keys of before it.
  kept: new Uint8Array([1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1]),
  density: 0.75,
  needle: [1],
};
const picture: BlockPicture = {
  ...{blockSize: 128, keyBlockSize: 128, segmentSize: 256, queryBlocks: 4, keyBlocks: 4},
  unpermuted: mask,
  permuted: mask,
  question: [2, 3],
};

describe('markBlocks', () => {
  it('tells kept, skipped and unseen blocks apart, and those of the fact', () => {
    const {unseen, skipped, kept, needleSkipped, needleKept} = Mark;
    expect([...markBlocks(picture, mask)]).to.deep.equal([
      ...[kept, needleKept, unseen, unseen],
      ...[kept, needleKept, unseen, unseen],
      ...[skipped, needleKept, kept, kept],
      ...[kept, needleSkipped, kept, kept],
    ]);
  });

  it('takes blocks of keys that are smaller than those of queries, and larger ones', () => {
    const {unseen, skipped, kept, needleSkipped} = Mark;
    const shown = {unpermuted: mask, permuted: mask, question: []};
    const small = {...shown, blockSize: 128, keyBlockSize: 64, segmentSize: 128, queryBlocks: 2, keyBlocks: 4};
    const ofSmall = {kept: new Uint8Array([1, 1, 0, 0, 1, 0, 1, 1]), density: 0.8, needle: [1]};
    expect([...markBlocks(small, ofSmall)]).to.deep.equal([
      ...[kept, Mark.needleKept, unseen, unseen],
      ...[kept, needleSkipped, kept, kept],
    ]);
    const large = {...shown, blockSize: 64, keyBlockSize: 128, segmentSize: 128, queryBlocks: 4, keyBlocks: 2};
    const ofLarge = {kept: new Uint8Array([1, 0, 1, 0, 0, 1, 1, 1]), density: 0.8, needle: []};
    expect([...markBlocks(large, ofLarge)]).to.deep.equal([kept, unseen, kept, unseen, skipped, kept, kept, kept]);
  });
});

describe('describeMask', () => {
  it('says whether the end of the question reads the fact', () => {
    expect(describeMask(picture, mask)).to.equal('75% of the blocks kept; the question skips the block of the fact.');
    expect(describeMask(picture, {...mask, needle: [1, 2]})).to.equal(
      '75% of the blocks kept; the question reads 1 of the 2 blocks of the fact.',
    );
  });

  it('says only what was kept where nothing was asked', () => {
    expect(describeMask({...picture, question: []}, {...mask, needle: []})).to.equal('75% of the blocks kept.');
  });
});
