import type {Tensor4D} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {openCheckpoint} from '../../../../runner/llama/checkpoint';
import {LlamaModel} from '../../../../runner/llama/model';
import {createTokenizer} from '../../../../runner/tokenizer';
import type {AttentionSample, AttentionSampleCollector, TuningOptions} from '../../../../src/index';
import {collectAttentionSamples, flashAttention, pbsAttention, tunePBSAttention} from '../../../../src/index';
import {describeOnCPU, fixture} from '../../../setup/environment';
import {relativeL1} from '../../../golden/golden_cases';
import {demoFiles} from './demo_checkpoint';

describeOnCPU('tuner on the model of the demo', () => {
  const layers = 2;
  const enough = new Error('enough layers');
  let seen: AttentionSampleCollector;
  let unseen: AttentionSampleCollector;

  before(async function () {
    this.timeout(120_000);
    const checkpoint = await openCheckpoint(await demoFiles());
    const model = await LlamaModel.load(checkpoint, {maxLength: 256});
    const tokenizer = createTokenizer(checkpoint.tokenizer);
    const collect = async (book: string, start: number) => {
      const text = new TextDecoder().decode(await fixture(`demo/public/books/${book}.txt`));
      const ids = tokenizer.encode(text.slice(start, start + 4000)).ids.slice(0, 256);
      expect(ids).to.have.lengthOf(256);
      const collector = collectAttentionSamples();
      const attend = (layer: number, query: Tensor4D, key: Tensor4D, value: Tensor4D) => {
        const output = collector.attention(query, key, value);
        if (layer === layers - 1) throw enough;
        return output;
      };
      // The rest of the model would take most of the time.
      await model.prefill(ids, {attend}).catch((error: Error) => expect(error).to.equal(enough));
      expect(collector.samples).to.have.lengthOf(layers);
      return collector;
    };
    seen = await collect('dubliners', 20_000);
    unseen = await collect('the-scarlet-letter', 50_000);
    model.dispose();
  });
  after(() => [seen, unseen].forEach((collector) => collector.dispose()));

  // With the default margin, a fifth of what is allowed.
  const sizes = {blockSize: 16, keyBlockSize: 8, segmentSize: 32};
  const options: TuningOptions = {...sizes, thresholds: [0.85, 0.87, 0.88, 0.89, 0.9, 0.91, 0.915, 0.92, 0.93]};

  it('chooses what keeps the error on another book', async () => {
    const allowed = 0.2;
    const tuned = await tunePBSAttention(seen.samples, {maxRelativeL1: allowed}, options);
    let error = 0;
    for (const [layer, {query, key, value}] of unseen.samples.entries()) {
      const sparse = pbsAttention(query, key, value, tuned[layer].options);
      error += relativeL1(await sparse.data(), await flashAttention(query, key, value).data()) / tuned.length;
    }
    expect(error)
      .to.be.above(0.6 * allowed)
      .and.at.most(allowed);
  });

  it('chooses what keeps the attention on another book', async () => {
    const tuned = await tunePBSAttention(seen.samples, {attentionMass: 0.8}, options);
    const keptOf = ({query, key, value}: AttentionSample, layer: number) =>
      new Promise<number>((resolve) => {
        pbsAttention(query, key, value, {
          ...tuned[layer].options,
          onReport: (report) => resolve(report.exactKeptMass().finally(() => report.dispose())),
        });
      });
    let kept = 0;
    for (const [layer, sample] of unseen.samples.entries()) {
      kept += (await keptOf(sample, layer)) / tuned.length;
    }
    expect(kept).to.be.within(0.8, 0.9);
  });
});
