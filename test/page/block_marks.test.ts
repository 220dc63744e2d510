import {expect} from 'chai';
import type {BlockPicture} from '../../demo/engine/protocol';
import {describeMask, Mark, markBlocks} from '../../demo/page/block_marks';

const mask = {
  // Blocks 2 and 3 are a segment: row 2 keeps block 3, which may hold keys of before it.
  kept: new Uint8Array([1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1]),
  density: 0.75,
  needle: [1],
};
const picture: BlockPicture = {
  blockSize: 128,
  segmentSize: 256,
  blocks: 4,
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
