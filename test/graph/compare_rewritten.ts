import type {io, Tensor} from '@tensorflow/tfjs-core';
import {io as tfio} from '@tensorflow/tfjs-core';
import {loadGraphModel} from '@tensorflow/tfjs-converter';
import {expect} from 'chai';
import type {RewriteAttentionOptions, RewrittenModel} from '../../src/graph';
import {rewriteAttention} from '../../src/graph';

/** Runs a model before and after, with threshold 1: it gives the same to 1e-4. */
export async function compareRewritten(
  artifacts: io.ModelArtifacts,
  feeds: Record<string, Tensor>,
  options?: RewriteAttentionOptions,
): Promise<RewrittenModel> {
  const run = async (model: io.ModelArtifacts) =>
    (await loadGraphModel(tfio.fromMemory(model))).execute(feeds) as Tensor;
  const rewritten = rewriteAttention(artifacts, {threshold: 1, ...options});
  const [before, after] = [await run(artifacts), await run(rewritten.modelArtifacts)];
  expect(after.shape).to.deep.equal(before.shape);
  const [x, y] = [await before.data(), await after.data()] as Float32Array[];
  const difference = x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i])), 0);
  expect(difference).to.be.below(1e-4);
  return rewritten;
}
